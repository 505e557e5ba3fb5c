"""What the stages of every task share: a raw folder to a plan, a plan to a trained run."""

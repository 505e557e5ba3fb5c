"""From a raw folder to batches."""

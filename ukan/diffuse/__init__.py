"""Diffusion, stage by stage: each reads files, calls the rooms below, and writes files."""

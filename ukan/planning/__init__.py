"""Fingerprint and budget to a plan. Pure: no files, no GPU; what a model costs comes in as a function."""

"""Layers: torch only, nothing of the project above them."""

"""Tiles to features."""

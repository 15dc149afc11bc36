"""Ranks and saved states; knows nothing of models."""

"""Answers and drawings from a trained model."""

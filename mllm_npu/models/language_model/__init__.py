"""Causal language models behind one interface."""

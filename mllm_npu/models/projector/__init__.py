"""Features of one width to tokens of another."""

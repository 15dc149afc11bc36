"""Features to pictures."""

"""The loop, its objectives, its records."""

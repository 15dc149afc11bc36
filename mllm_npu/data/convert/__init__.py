"""Data that others have, turned into indexed shards."""

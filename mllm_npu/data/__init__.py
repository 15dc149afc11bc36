"""Rows on disk to packed batches: index, shards, plan, tasks, collate."""

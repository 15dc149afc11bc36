"""Tasks, their runner and the report."""

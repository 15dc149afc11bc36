"""One file per operation: the slow truth, the fast ways, the table that picks one."""

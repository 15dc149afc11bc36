"""One file per benchmark: examples, score, citation."""

"""One file per kind of row: row -> Conversation."""

"""How a slot runs an attempt."""

"""The walk, in threads."""

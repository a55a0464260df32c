"""A job's parts: its args, its options, its row and its states."""

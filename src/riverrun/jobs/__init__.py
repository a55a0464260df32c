"""What a job is: its args, its options, its row and its states."""

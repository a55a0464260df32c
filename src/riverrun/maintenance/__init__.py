"""What keeps the tables in order while clients run."""

"""What riverrun writes to a log, and what it never writes there."""

"""The formats that River reads and writes: JSON as Go encodes it, and notifications."""

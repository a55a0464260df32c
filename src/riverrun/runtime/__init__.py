"""The threads of a working client: those that notify, claim and complete, and their helpers."""

"""What others may see of a client: metrics and traces, each with the library it needs."""

"""Metrics and traces of a client; each module needs its own library."""

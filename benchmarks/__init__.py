"""Benchmarks of what riverrun promises of speed; run them with `python -m benchmarks.run`."""

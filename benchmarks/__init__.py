"""What riverrun promises of speed, measured: `python -m benchmarks.run`, `--small` for a minute."""

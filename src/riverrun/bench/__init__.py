"""The benchmark of `riverrun bench`: jobs per second, and the delay until a job begins."""

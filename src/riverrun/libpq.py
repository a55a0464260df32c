"""Imports psycopg first, so that the error for a missing libpq names what to install."""

try:
    import psycopg  # noqa: F401
except ImportError as error:
    advice = "pip install 'riverrun[binary]', or on Debian and Ubuntu: apt install libpq5"
    reason = str(error).splitlines()[0]
    problem = f"riverrun needs PostgreSQL's client library, libpq: {advice} ({reason})"
    raise ImportError(problem) from None

"""Imports psycopg first of all: where it finds no libpq, the error says what to install."""

try:
    import psycopg  # noqa: F401
except ImportError as error:
    advice = "pip install 'riverrun[binary]' brings it; so does libpq5 on Debian and Ubuntu"
    reason = str(error).splitlines()[0]
    problem = f"riverrun needs PostgreSQL's client library, libpq: {advice} ({reason})"
    raise ImportError(problem) from None

"""A transaction of riverrun's own that only reads, with a time limit for each statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Select, String, func, literal, select

from riverrun.db.engines import check_pool
from riverrun.db.transactions import own_connection

CANCELED = "57014"
"""The SQLSTATE of a statement that took longer than its limit, or was cancelled by an operator."""


@contextmanager
def reading(engine: Engine, limit_s: float) -> Iterator[Connection]:
    """Yield a connection in a transaction that cannot write. It ends with the block.

    The server itself cancels a statement that takes too long, with SQLSTATE 57014. So it does no
    more work for a reader that has gone.

    Args:
        engine: The engine.
        limit_s: Seconds that each statement may take.
    """
    check_pool(engine)
    with own_connection(engine) as connection:
        connection.execute(_settings(limit_s))
        yield connection


def _settings(limit_s: float) -> Select[Any]:
    # One statement for both: each costs a round trip.
    settings = {"statement_timeout": str(int(limit_s * 1_000)), "transaction_read_only": "on"}
    return select(
        *(
            func.set_config(literal(name, String), literal(value, String), literal(True))
            for name, value in settings.items()
        )
    )

"""Time limits for the client's own SQL statements. `runtime.statement_canceller` enforces them.

TCP notices a server that is gone, but not a proxy that acknowledges data and passes it on to no
server.
"""

import math
import os
import threading
from typing import Any

import psycopg
from sqlalchemy import Engine

_LIMIT = "riverrun_timeout_s"


SINGLE = "riverrun_single"
"""The execution option for an engine on which each of riverrun's transactions is one statement.

Such a transaction needs no BEGIN and no COMMIT. SQLAlchemy's own option,
`isolation_level="AUTOCOMMIT"`, would return a connection to the application with a changed
isolation level.
"""


def with_timeout(engine: Engine, limit_s: float, **options: Any) -> Engine:
    """Return `engine` with a time limit for each of riverrun's transactions on it.

    Args:
        engine: The engine. The result shares its pool.
        limit_s: Seconds that a transaction may take, including the check-out of its connection.
        **options: Further execution options.
    """
    return engine.execution_options(**{_LIMIT: limit_s}, **options)


def limit_of(engine: Engine) -> float:
    """Return the seconds that a transaction on `engine` may take; infinite if it has no limit."""
    limit_s: float = engine.get_execution_options().get(_LIMIT, math.inf)
    return limit_s


class Waiting:
    """A context manager in which a thread waits for the server on a connection of `engine`.

    Entering must be cheap because every statement does. So it does not read the clock:
    the statement canceller stamps the deadline when it first sees the entry.

    Attributes:
        thread: The thread's identity.
        limit_s: Seconds that the wait may take; infinite if the engine has no limit.
        until: The deadline, by the process's monotonic clock. None until the first look at it.
        asked: The connection whose statement the server was asked to cancel; None before that.
    """

    __slots__ = ("asked", "limit_s", "thread", "until")

    def __init__(self, engine: Engine) -> None:
        self.thread = threading.get_ident()
        self.limit_s = limit_of(engine)
        self.until: float | None = None
        self.asked: psycopg.Connection[Any] | None = None

    def __enter__(self) -> None:
        waiting.add(self)

    def __exit__(self, *_: object) -> None:
        waiting.discard(self)


waiting: set[Waiting] = set()
"""The current waits of all threads."""


# A forked child has none of the parent's threads, and its own may get their identities.
os.register_at_fork(after_in_child=waiting.clear)

"""Answers: how long a client's own statements may wait for theirs. The service `Deadline` looks.

TCP notices a server that is gone, but not a proxy that acknowledges what it passes on to nobody.
"""

import math
import os
import threading
from typing import Any

import psycopg
from sqlalchemy import Engine

_LIMIT = "riverrun_answer_s"


SINGLE = "riverrun_single"
"""The execution option of an engine on which each transaction of riverrun's is one statement.

It needs no BEGIN and no COMMIT. SQLAlchemy's own option, `isolation_level="AUTOCOMMIT"`, would
leave a connection of the host's with another isolation level than it had.
"""


def within(engine: Engine, limit_s: float, **options: Any) -> Engine:
    """Return `engine` for statements whose transaction is given up if it is not over in time.

    Args:
        engine: The engine whose pool they share.
        limit_s: Seconds that a transaction may take, its connection's check-out included.
        **options: Further execution options.
    """
    return engine.execution_options(**{_LIMIT: limit_s}, **options)


def limit_of(engine: Engine) -> float:
    """Return the seconds that a transaction of `engine` may take; infinite unless `within` some."""
    limit_s: float = engine.get_execution_options().get(_LIMIT, math.inf)
    return limit_s


class Awaited:
    """The time in which a thread awaits answers on a connection of `engine`.

    Nothing here asks for the time: it is for every statement there is.

    Attributes:
        thread: The thread's identity.
        limit_s: Seconds it may take; infinite unless the engine is from `within`.
        until: When it is to be over, by the process's clock; None until somebody has looked.
        asked: The connection on which the server was asked to end it.
    """

    __slots__ = ("asked", "limit_s", "thread", "until")

    def __init__(self, engine: Engine) -> None:
        self.thread = threading.get_ident()
        self.limit_s = limit_of(engine)
        self.until: float | None = None
        self.asked: psycopg.Connection[Any] | None = None

    def __enter__(self) -> None:
        awaited.add(self)

    def __exit__(self, *_: object) -> None:
        awaited.discard(self)


awaited: set[Awaited] = set()
"""What is awaited at the moment, in all threads."""


# In a forked child the parent's threads are not there, and new ones may have their identities.
os.register_at_fork(after_in_child=awaited.clear)

"""The application's engine for `ctx.transaction()`, on which an attempt waits for a connection.

There may be more slots than connections in the pool. Waiting is not a failure of the job. It lasts
up to the attempt's timeout, and an attempt that gets no connection until then is not counted.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import psycopg
from sqlalchemy import Engine, NullPool, Pool, PoolProxiedConnection, QueuePool, SingletonThreadPool
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.util import await_only

from riverrun.errors import AttemptInterrupted, JobTimedOut, NoConnection
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)


PAUSE_S = 0.1
"""Seconds between tries to connect; doubled after each try, up to ten times this."""


WARN_S = 10.0
"""Minimum seconds between an engine's warnings that an attempt waits for a connection."""


class Patient(Protocol):
    """An attempt's context, as far as it can wait for a connection."""

    @property
    def reason(self) -> AttemptInterrupted | None:
        """Why the attempt must stop waiting; None while it may wait."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait for `timeout` seconds, or until interrupted; return whether it was interrupted."""
        ...


_waiting: ContextVar[Patient | None] = ContextVar("riverrun_waiting", default=None)


@contextmanager
def waiting_as(attempt: Patient) -> Iterator[None]:
    """Make `attempt` wait for the connections that a WorkerEngine opens in this block."""
    token = _waiting.set(attempt)
    try:
        yield
    finally:
        _waiting.reset(token)


class WorkerEngine(OptionEngine):
    """The application's engine and pool, on which an attempt waits for a connection.

    Args:
        host: The application's engine, or the `sync_engine` of its AsyncEngine.
        slots: How many attempts share the pool, for the warning that they are too many.

    Attributes:
        slots: The current number; it changes with the client's queues.
    """

    def __init__(self, host: Engine, slots: int) -> None:
        super().__init__(host, {})
        self.slots = slots
        self._lock = threading.Lock()  # guards _warn_at
        self._warn_at = 0.0

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection of the pool.

        Raises:
            NoConnection: If none was free before the attempt's timeout.
            AttemptInterrupted: If the attempt was interrupted for another reason.
        """
        attempt = _waiting.get()
        if attempt is None:
            return super().raw_connection()
        began, pause_s = time.monotonic(), PAUSE_S
        while True:
            try:
                return super().raw_connection()
            except PoolTimeout as error:
                problem: Exception = error
                text = f"{too_few(self.pool, self.slots)}, and all are in use"
            except Exception as error:
                if not _is_refusal(error):
                    raise
                # Only the class: the driver's text may repeat a part of the password.
                problem, text = error, f"the database refuses them ({type(error).__name__})"
            self._warn(text)
            self._sleep(attempt, pause_s)
            pause_s = min(2 * pause_s, 10 * PAUSE_S)
            if isinstance(attempt.reason, JobTimedOut):
                raise NoConnection(time.monotonic() - began, text) from problem
            if attempt.reason is not None:
                raise attempt.reason

    def _sleep(self, attempt: Patient, pause_s: float) -> None:
        if self.dialect.is_async:
            await_only(asyncio.sleep(pause_s))
        else:
            attempt.wait(pause_s)

    def _warn(self, text: str) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._warn_at:
                return
            self._warn_at = now + WARN_S
        logger.warning("ctx.transaction() waits for a connection: %s", text)


def capacity(pool: Pool) -> int | None:
    """Return how many connections `pool` provides at once; None if it has no limit."""
    if isinstance(pool, NullPool | SingletonThreadPool):
        return None
    if isinstance(pool, QueuePool):
        more = pool._max_overflow
        return None if more < 0 else pool.size() + more
    return 1  # StaticPool, AssertionPool


def too_few(pool: Pool, slots: int) -> str:
    """Return advice for a pool with fewer connections than the slots that share it."""
    have = capacity(pool)
    sizes = ""
    if isinstance(pool, QueuePool):
        sizes = f" (pool_size={pool.size()}, max_overflow={pool._max_overflow})"
    advice = f"create_engine(..., pool_size={slots}) or QueueConfig(max_workers={have})"
    return f"{slots} slots share the {have} connections of the engine's pool{sizes}; {advice}"


def _is_refusal(error: Exception) -> bool:
    """Return whether the server, or something on the way to it, refused a connection."""
    # asyncpg's errors come unwrapped. 53: too many connections; 57: the server is starting.
    state = getattr(error, "sqlstate", None) or ""
    return isinstance(error, psycopg.OperationalError | OSError) or state[:2] in ("08", "53", "57")

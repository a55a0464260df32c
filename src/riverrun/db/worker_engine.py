"""The host's engine as `ctx.transaction()` uses it: an attempt waits for a connection to be free.

Slots may outnumber the connections of the pool. The wait is no failure of the job: it lasts as long
as the attempt may take, and an attempt that got none in that time does not count.
"""

import asyncio
import logging
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

logger = logging.getLogger(__name__)


PAUSE_S = 0.1
"""Seconds between two tries of what was refused at once; doubled up to ten times that."""


WARN_S = 10.0
"""Least seconds between two warnings of one engine that its connections are all in use."""


class Patient(Protocol):
    """Who waits for a connection: an attempt's context."""

    @property
    def reason(self) -> AttemptInterrupted | None:
        """Why it shall wait no longer; None while it may."""
        ...

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds, or less if it may wait no longer; return whether so."""
        ...


_waiting: ContextVar[Patient | None] = ContextVar("riverrun_waiting", default=None)


@contextmanager
def waiting_as(attempt: Patient) -> Iterator[None]:
    """Let connections that a WorkerEngine opens in this block be waited for by `attempt`."""
    token = _waiting.set(attempt)
    try:
        yield
    finally:
        _waiting.reset(token)


class WorkerEngine(OptionEngine):
    """The host's engine and pool; an attempt waits for its connections as long as it may.

    Args:
        host: The host's engine; an AsyncEngine's `sync_engine` too.
        slots: How many attempts share its pool; for what is told when they are too many.

    Attributes:
        slots: The same; it changes with the client's queues.
    """

    def __init__(self, host: Engine, slots: int) -> None:
        super().__init__(host, {})
        self.slots = slots
        self._lock = threading.Lock()  # guards _warn_at
        self._warn_at = 0.0

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection of the pool.

        Raises:
            NoConnection: If there was none before the attempt's time was over.
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
                # Its class only: what the driver says may repeat what was meant as a password.
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
    """Return how many connections `pool` gives out at once; None if it has no limit."""
    if isinstance(pool, NullPool | SingletonThreadPool):
        return None
    if isinstance(pool, QueuePool):
        more = pool._max_overflow
        return None if more < 0 else pool.size() + more
    return 1  # StaticPool, AssertionPool


def too_few(pool: Pool, slots: int) -> str:
    """Return the figures of a pool that has fewer connections than slots share, and the advice."""
    have = capacity(pool)
    sizes = ""
    if isinstance(pool, QueuePool):
        sizes = f" (pool_size={pool.size()}, max_overflow={pool._max_overflow})"
    advice = f"create_engine(..., pool_size={slots}) or QueueConfig(max_workers={have})"
    return f"{slots} slots share the {have} connections of the engine's pool{sizes}; {advice}"


def _is_refusal(error: Exception) -> bool:
    """Return whether a connection was refused: by the server, or by what leads to it."""
    # asyncpg's errors come as they are; 53 is too many connections, 57 a server that starts.
    state = getattr(error, "sqlstate", None) or ""
    return isinstance(error, psycopg.OperationalError | OSError) or state[:2] in ("08", "53", "57")

"""A connection that is kept between statements that run often, with those statements prepared.

Taking a connection out of the pool, changing its settings, and passing a statement through the
driver's cursor together take as long as a small statement takes in the server.
"""

import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Any, cast

import psycopg
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine, Pool
from sqlalchemy.pool import PoolProxiedConnection

from riverrun.db.driver import Loan, OwnCursor, TimesAsNumbers, is_idle, suits
from riverrun.db.greenlets import patched_by

KEPT = "riverrun_kept"
"""The execution option for an engine that has a kept connection: a Kept."""

KEEP_S = 30.0
"""Seconds until a connection goes back to its pool, which may test or replace it then."""

CLOSE_S = 1.0
"""Seconds that a close waits for a thread that uses the connection."""

_HELP = b"\x00"

_BIND = re.compile(r"%(?:\((\w+)\)s|%)")

_numbers = count()

_prepared: weakref.WeakKeyDictionary[psycopg.Connection[Any], dict[str, bytes]] = (
    weakref.WeakKeyDictionary()
)
"""The names of the statements that are prepared on each connection, by their text."""


class Kept:
    """Keeps at most one connection of an engine's pool, in autocommit, for one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while the connection is in use; guards the rest
        self._ready: Ready | None = None
        self._unsuited: Pool | None = None  # its connections need a BEGIN
        self._closed = False

    @contextmanager
    def connection(self, engine: Engine) -> Iterator["Ready | None"]:
        """Yield the connection; None if another thread uses it, or no connection is suited.

        Args:
            engine: An engine whose transactions are single statements.
        """
        if not self._lock.acquire(blocking=False):
            yield None
            return
        try:
            yield self._usable(engine)
        finally:
            if self._closed:
                self._drop()
            self._lock.release()

    def close(self) -> None:
        """Give the connection back to its pool for good, at the end of its use if it is in use."""
        self._closed = True
        if self._lock.acquire(timeout=CLOSE_S):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _usable(self, engine: Engine) -> "Ready | None":
        pool = engine.pool
        ready = self._ready
        if ready is not None and ready.pool is pool and ready.is_fresh:
            return ready
        self._drop(pool)
        # Among greenlets, libpq's calls in `_execute` would hold up the whole process while the
        # server works, and for ever if it waits for the lock of another greenlet.
        if self._closed or self._unsuited is pool or patched_by() is not None:
            return None
        pooled = engine.raw_connection()
        driver = pooled.driver_connection
        if isinstance(driver, psycopg.Connection) and driver.prepare_threshold is not None:
            try:
                loan = Loan(driver, autocommit=True) if is_idle(driver) else None
                if loan is not None and suits(driver):
                    self._ready = Ready(pooled, pool, loan)
                    return self._ready
            except psycopg.Error:
                pooled.invalidate()
                raise
            if loan is not None and not loan.give_back():
                pooled.invalidate()
        pooled.close()
        self._unsuited = pool
        return None

    def _drop(self, pool: Pool | None = None) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.give_back(close=pool is not None and ready.pool is not pool)


class Ready:
    """A connection in autocommit, with its prepared statements."""

    def __init__(self, pooled: PoolProxiedConnection, pool: Pool, loan: Loan) -> None:
        self.pool = pool
        self.driver = cast("psycopg.Connection[Any]", pooled.driver_connection)
        self._pooled = pooled
        self._loan = loan
        self._until = time.monotonic() + KEEP_S
        # The server keeps them as long as the connection, which may have been here before.
        self._names = _prepared.setdefault(self.driver, {})
        self._transformers = {
            False: Transformer(OwnCursor(self.driver)),
            True: Transformer(TimesAsNumbers(self.driver)),
        }

    @property
    def is_fresh(self) -> bool:
        """Whether the connection may be used once more before its pool sees it again."""
        return not self.driver.closed and time.monotonic() < self._until

    def give_back(self, *, close: bool = False) -> None:
        """Give the connection back to its pool as it came.

        Args:
            close: Whether to close it, because its pool was replaced.
        """
        if not self._loan.give_back() or close:
            self._pooled.invalidate()
        self._pooled.close()

    def rows(
        self, query: str, params: Mapping[str, Any], *, times: bool
    ) -> Sequence[Sequence[Any]] | None:
        """Execute a statement and return its rows; None if its binds need the driver's help.

        Args:
            query: The statement, with binds as psycopg takes them.
            params: Its binds.
            times: Whether times are returned as numbers.

        Raises:
            psycopg.Error: If the server refuses the statement, or the connection is lost.
        """
        text, names = _numbered(query)
        values = [_sent(params[name]) for name in names]
        if _HELP in values:
            return None
        try:
            return self._execute(text, values, times=times)
        except psycopg.Error as error:
            if not _is_outdated(error):
                raise
            del self._names[text]
            return self._execute(text, values, times=times)

    def _execute(
        self, text: str, values: list[bytes | None], *, times: bool
    ) -> Sequence[Sequence[Any]]:
        driver = self.driver  # The statement canceller finds it in this frame.
        connection = driver.pgconn
        name = self._names.get(text)
        if name is None:
            # The names that psycopg gives to statements begin with _pg3_.
            name = b"riverrun_%d" % next(_numbers)
            result = connection.prepare(name, text.encode())
            if result.status != ExecStatus.COMMAND_OK:
                raise self._error(result)
            self._names[text] = name
        # Its annotation lacks None, which stands for NULL.
        result = connection.exec_prepared(name, values, result_format=Format.BINARY)  # type: ignore[arg-type]
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise self._error(result)
        transformer = self._transformers[times]
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def _error(self, result: PGresult) -> psycopg.Error:
        if self.driver.closed:
            return psycopg.OperationalError(result.error_message.decode("utf-8", "replace").strip())
        return errors.error_from_result(result, encoding="utf-8")


def _sent(value: object) -> bytes | None:
    """Return a bind as the server reads it, in text; _HELP if that is for the driver to do."""
    match value:
        case None:
            return None
        case str() if "\x00" not in value:
            return value.encode()
        case bool():
            return _HELP
        case int():
            return b"%d" % value
        case list() if all(isinstance(item, str) and "\x00" not in item for item in value):
            quoted = (item.replace("\\", "\\\\").replace('"', '\\"') for item in value)
            return ("{" + ",".join(f'"{item}"' for item in quoted) + "}").encode()
    return _HELP


def _is_outdated(error: psycopg.Error) -> bool:
    """Return whether the server has forgotten the prepared statement, or its table has changed."""
    if isinstance(error, errors.FeatureNotSupported):
        # Others may raise this, too, such as a trigger. Source: PostgreSQL, plancache.c.
        return error.diag.source_function == "RevalidateCachedQuery"
    return isinstance(error, errors.InvalidSqlStatementName)


@lru_cache(maxsize=256)
def _numbered(query: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement with numbered binds, as the server takes them, and their names."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _BIND.sub(number, query), tuple(names)

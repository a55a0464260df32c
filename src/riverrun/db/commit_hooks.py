"""Commit hooks: call something once a transaction has committed, or refuse its COMMIT.

SQLAlchemy has an event before a Connection commits, and none after it. So the engine's dialect,
which sends each COMMIT, is wrapped, once for as long as the engine lives. What is to be called is
kept with the transaction, and weakly: one that is rolled back, lost or forgotten takes it along,
and nothing has to look at its connection, which may not be there any more. An error of a hook is
logged, and the host's commit does not fail by it.
"""

import logging
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import attrs
from sqlalchemy import Connection, Dialect, RootTransaction
from sqlalchemy.pool import PoolProxiedConnection

from riverrun.errors import ClientNotReady
from riverrun.logs.errors import log_error

logger = logging.getLogger(__name__)


T = TypeVar("T", bound=Hashable)


_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction is open


@attrs.define(eq=False)
class _Pending:
    """What to call when a transaction has committed.

    Attributes:
        transaction: The transaction. Another one on the same connection has nothing to do with it.
        calls: What to call, and with what, each once and in order.
        savepoints: How many calls there were when a savepoint was made, by its name.
    """

    transaction: weakref.ref[RootTransaction]
    calls: dict[tuple[Callable[[Any], object], Hashable], None] = attrs.field(factory=dict)
    savepoints: dict[str, int] = attrs.field(factory=dict)


_pending: weakref.WeakKeyDictionary[PoolProxiedConnection, _Pending] = weakref.WeakKeyDictionary()


_refused: weakref.WeakKeyDictionary[PoolProxiedConnection, str] = weakref.WeakKeyDictionary()
_wrapped: weakref.WeakSet[Dialect] = weakref.WeakSet()


def after_commit(connection: Connection, call: Callable[[T], object], item: T) -> None:
    """Have `call(item)` called once the transaction now open on `connection` has committed.

    It is called in the thread that commits, before the host's commit() returns; never if the
    transaction, or the savepoint that is open now, is rolled back. The same call of the same item
    is made once. In autocommit, where the last statement has committed by itself, it is made now.

    Args:
        connection: A Connection that has executed a statement just now.
        call: What to call. It must not wait, and what it raises is logged.
        item: What to call it with.
    """
    proxied = connection.connection
    if not _in_transaction(proxied):
        _make([(call, item)])
        return
    transaction = connection.get_transaction()
    if transaction is None:
        return  # The driver's own transaction, whose end SQLAlchemy does not know.
    _wrap(connection.dialect)
    pending = _pending.get(proxied)
    if pending is None or pending.transaction() is not transaction:
        pending = _pending[proxied] = _Pending(weakref.ref(transaction))
    pending.calls[call, item] = None


def refuse_commit(connection: Connection, problem: str) -> PoolProxiedConnection:
    """Have a COMMIT on `connection` roll back and raise ClientNotReady, until it is allowed.

    Returns:
        What `allow_commit` takes; the connection itself may be invalid by then.
    """
    _wrap(connection.dialect)
    proxied = connection.connection
    _refused[proxied] = problem
    return proxied


def allow_commit(proxied: PoolProxiedConnection) -> None:
    """Allow what `refuse_commit` has refused."""
    _refused.pop(proxied, None)


def _wrap(dialect: Dialect) -> None:
    if dialect in _wrapped:
        return
    _wrapped.add(dialect)
    commit, commit_twophase = dialect.do_commit, dialect.do_commit_twophase
    savepoint, rollback_to = dialect.do_savepoint, dialect.do_rollback_to_savepoint

    def do_commit(dbapi_connection: PoolProxiedConnection) -> None:
        if problem := _refused and _refused.get(dbapi_connection):
            # SQLAlchemy takes a transaction whose COMMIT failed for over, and leaves it as it is.
            dialect.do_rollback(dbapi_connection)
            raise ClientNotReady(problem)
        calls = _take(dbapi_connection)
        commit(dbapi_connection)
        _make(calls)

    def do_commit_twophase(connection: Connection, *args: Any, **options: Any) -> None:
        calls = _take(_proxied(connection))
        commit_twophase(connection, *args, **options)
        _make(calls)

    def do_savepoint(connection: Connection, name: str) -> None:
        savepoint(connection, name)
        if pending := _find(_proxied(connection)):
            pending.savepoints[name] = len(pending.calls)

    def do_rollback_to_savepoint(connection: Connection, name: str) -> None:
        # Before it: what is to be undone is undone, or else the connection is lost.
        if pending := _find(_proxied(connection)):
            # A savepoint of before the first call is not known.
            for key in list(pending.calls)[pending.savepoints.get(name, 0) :]:
                del pending.calls[key]
        rollback_to(connection, name)

    for wrapper in (do_commit, do_commit_twophase, do_savepoint, do_rollback_to_savepoint):
        setattr(dialect, wrapper.__name__, wrapper)


def _proxied(connection: Connection) -> PoolProxiedConnection | None:
    """Return what `connection` has from its pool; None if that is lost.

    To ask a Connection for it that was invalidated would connect anew, or raise.
    """
    return None if connection.closed or connection.invalidated else connection.connection


def _find(proxied: PoolProxiedConnection | None) -> _Pending | None:
    """Return what is pending on the transaction that is open on `proxied`."""
    if proxied is None or not _pending:
        return None
    try:
        pending = _pending.get(proxied)
    except TypeError:
        return None  # One of SQLAlchemy's for a moment, to which no weak reference can be.
    if pending is None:
        return None
    transaction = pending.transaction()
    if transaction is None or transaction.connection.get_transaction() is not transaction:
        return None
    return pending


def _take(proxied: PoolProxiedConnection | None) -> list[tuple[Callable[[Any], object], Any]]:
    pending = _find(proxied)
    if proxied is None or pending is None:
        return []
    del _pending[proxied]
    return list(pending.calls)


def _make(calls: list[tuple[Callable[[Any], object], Any]]) -> None:
    for call, item in calls:
        try:
            call(item)
        except Exception as error:
            name = getattr(call, "__qualname__", call)
            log_error(logger, error, "failed after a commit: %s", name)


def _in_transaction(proxied: PoolProxiedConnection) -> bool:
    """Return whether a transaction is open on `proxied`, as its driver has it."""
    driver: Any = proxied.driver_connection
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    if status is not None:  # psycopg, and psycopg2
        return int(status) != _IDLE
    is_in_transaction = getattr(driver, "is_in_transaction", None)
    if is_in_transaction is not None:  # asyncpg
        return bool(is_in_transaction())
    return not getattr(proxied.dbapi_connection, "autocommit", False)

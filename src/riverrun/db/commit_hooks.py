"""Step 2 of 5, notify: calls after a transaction has committed, and commits that are refused.

SQLAlchemy has an event before a Connection commits, and none after it. So this wraps the engine's
dialect, which sends each COMMIT, once per engine. The hooks are stored by weak reference to their
transaction: they vanish with a transaction that is rolled back, lost or forgotten, and no code has
to look at its connection, which may be gone by then. An error of a hook is logged and does not make
the application's commit fail.
"""

import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import attrs
from sqlalchemy import Connection, Dialect, RootTransaction
from sqlalchemy.pool import PoolProxiedConnection

from riverrun.errors import ClientNotReady
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)


Call: TypeAlias = Callable[[Any], object]
"""A function to call with an item once a transaction has committed."""


_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction is open


@attrs.define(eq=False)
class _Pending:
    """The calls to make when a transaction has committed.

    Attributes:
        transaction: The transaction. A later one on the same connection does not make the calls.
        calls: Functions with their argument, each once and in order.
        savepoints: For each savepoint, by name, the number of calls when it was made.
    """

    transaction: weakref.ref[RootTransaction]
    calls: dict[tuple[Call, Hashable], None] = attrs.field(factory=dict)
    savepoints: dict[str, int] = attrs.field(factory=dict)


_pending: weakref.WeakKeyDictionary[PoolProxiedConnection, _Pending] = weakref.WeakKeyDictionary()


_refused: weakref.WeakKeyDictionary[PoolProxiedConnection, str] = weakref.WeakKeyDictionary()
_wrapped: weakref.WeakSet[Dialect] = weakref.WeakSet()


def after_commit(
    connection: Connection, call: Call, item: Hashable, *, unless: Call | None = None
) -> None:
    """Call `call(item)` once the transaction that is open on `connection` has committed.

    The call is made in the thread that commits, before the application's commit() returns. It is
    not made if the transaction, or the current savepoint, is rolled back. The same call with the
    same item is made only once. In autocommit the last statement has committed already, and the
    call is made at once.

    Args:
        connection: A Connection that has just executed a statement.
        call: The function. It must not block. An error that it raises is logged.
        item: Its argument.
        unless: Another function. Nothing is done if that is to be called with the item.
    """
    proxied = connection.connection
    pending = _find(proxied)
    if pending is None:
        if not _in_transaction(proxied):
            make_calls([(call, item)])
            return
        transaction = connection.get_transaction()
        if transaction is None:
            return  # The driver's own transaction, of whose end SQLAlchemy has no notice.
        _wrap(connection.dialect)
        pending = _pending[proxied] = _Pending(weakref.ref(transaction))
    if unless is None or (unless, item) not in pending.calls:
        pending.calls[call, item] = None


def is_pending(connection: Connection, call: Call, item: Hashable) -> bool:
    """Return whether `call(item)` is to be made once the transaction has committed."""
    pending = _find(connection.connection)
    return pending is not None and (call, item) in pending.calls


def refuse_commit(connection: Connection, problem: str) -> PoolProxiedConnection:
    """Make each COMMIT on `connection` roll back and raise ClientNotReady, until it is allowed.

    Returns:
        The argument for `allow_commit`. By then the connection itself may be invalid.
    """
    _wrap(connection.dialect)
    proxied = connection.connection
    _refused[proxied] = problem
    return proxied


def allow_commit(proxied: PoolProxiedConnection) -> None:
    """Allow the commits that `refuse_commit` refuses."""
    _refused.pop(proxied, None)


def _wrap(dialect: Dialect) -> None:
    if dialect in _wrapped:
        return
    _wrapped.add(dialect)
    commit, commit_twophase = dialect.do_commit, dialect.do_commit_twophase
    savepoint, rollback_to = dialect.do_savepoint, dialect.do_rollback_to_savepoint

    def do_commit(dbapi_connection: PoolProxiedConnection) -> None:
        if problem := _refused and _refused.get(dbapi_connection):
            # SQLAlchemy considers a transaction whose COMMIT failed to be over, and would leave it
            # open.
            dialect.do_rollback(dbapi_connection)
            raise ClientNotReady(problem)
        calls = _take(dbapi_connection)
        commit(dbapi_connection)
        make_calls(calls)

    def do_commit_twophase(connection: Connection, *args: Any, **options: Any) -> None:
        calls = _take(_proxied(connection))
        commit_twophase(connection, *args, **options)
        make_calls(calls)

    def do_savepoint(connection: Connection, name: str) -> None:
        savepoint(connection, name)
        if pending := _find(_proxied(connection)):
            pending.savepoints[name] = len(pending.calls)

    def do_rollback_to_savepoint(connection: Connection, name: str) -> None:
        # Drop the calls first: either the rollback succeeds, or the connection is lost.
        if pending := _find(_proxied(connection)):
            # A savepoint that is older than the first call is not in `savepoints`.
            for key in list(pending.calls)[pending.savepoints.get(name, 0) :]:
                del pending.calls[key]
        rollback_to(connection, name)

    for wrapper in (do_commit, do_commit_twophase, do_savepoint, do_rollback_to_savepoint):
        setattr(dialect, wrapper.__name__, wrapper)


def _proxied(connection: Connection) -> PoolProxiedConnection | None:
    """Return the pooled connection of `connection`; None if it is lost.

    An invalidated Connection would reconnect to return it, or raise.
    """
    return None if connection.closed or connection.invalidated else connection.connection


def _find(proxied: PoolProxiedConnection | None) -> _Pending | None:
    """Return the pending calls of the transaction that is open on `proxied`; None if none."""
    if proxied is None or not _pending:
        return None
    try:
        pending = _pending.get(proxied)
    except TypeError:
        return None  # A short-lived object of SQLAlchemy's that does not allow weak references.
    if pending is None:
        return None
    transaction = pending.transaction()
    if transaction is None or transaction.connection.get_transaction() is not transaction:
        return None
    return pending


def _take(proxied: PoolProxiedConnection | None) -> list[tuple[Call, Hashable]]:
    pending = _find(proxied)
    if proxied is None or pending is None:
        return []
    del _pending[proxied]
    return list(pending.calls)


def make_calls(calls: list[tuple[Call, Hashable]]) -> None:
    """Make calls after a commit; what they raise is logged."""
    for call, item in calls:
        try:
            call(item)
        except Exception as error:
            name = getattr(call, "__qualname__", call)
            log_error(logger, error, "a call after a commit failed: %s", name)


def _in_transaction(proxied: PoolProxiedConnection) -> bool:
    """Return whether a transaction is open on `proxied`, according to its driver."""
    driver: Any = proxied.driver_connection
    pgconn = getattr(driver, "pgconn", None)
    if pgconn is not None:  # psycopg
        return int(pgconn.transaction_status) != _IDLE
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    if status is not None:  # psycopg2
        return int(status) != _IDLE
    is_in_transaction = getattr(driver, "is_in_transaction", None)
    if is_in_transaction is not None:  # asyncpg
        return bool(is_in_transaction())
    return not getattr(proxied.dbapi_connection, "autocommit", False)

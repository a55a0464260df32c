"""Change the settings of the application's connections, and restore them afterwards."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import IsolationLevel, postgres
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.array import register_all_arrays
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import TextBinaryLoader
from sqlalchemy import Connection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


def _default_adapters() -> AdaptersMap:
    # Not a copy of psycopg.adapters: the application's adapters there are for its own statements.
    adapters = AdaptersMap(types=postgres.types)
    postgres.register_default_adapters(adapters)
    register_all_arrays(adapters)
    return adapters


class _BitLoader(Loader):
    """Loads a bit string as its text, as SQLAlchemy expects it."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        packed = bytes(data)
        bits = "".join(f"{byte:08b}" for byte in packed[4:])
        return bits[: int.from_bytes(packed[:4], "big")]


_ADAPTERS = _default_adapters()


_ADAPTERS.register_loader("bit", _BitLoader)


_ADAPTERS.register_loader(0, TextBinaryLoader)  # types that psycopg does not know, such as enums


_TIMES_AS_NUMBERS = AdaptersMap(_ADAPTERS)


_TIMES_AS_NUMBERS.register_loader("timestamptz", Int8BinaryLoader)


class OwnCursor(psycopg.Cursor[Any]):
    """A cursor with psycopg's defaults, whatever factories and adapters the connection has.

    Results are binary, which no setting of the session changes. Times in text depend on DateStyle,
    and psycopg reads only one style.
    """

    def __init__(self, connection: psycopg.Connection[Any], **_: object) -> None:
        super().__init__(connection, row_factory=tuple_row)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The default adapters of psycopg."""
        return _ADAPTERS


class TimesAsNumbers(OwnCursor):
    """An OwnCursor that returns times as PostgreSQL stores them: in microseconds since 2000."""

    @property
    def adapters(self) -> AdaptersMap:
        """The default adapters of psycopg, except the one for timestamptz."""
        return _TIMES_AS_NUMBERS


class _OwnAsyncCursor(psycopg.AsyncCursor[Any]):
    """An OwnCursor for async connections."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], **_: object) -> None:
        super().__init__(connection, row_factory=tuple_row)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The default adapters of psycopg."""
        return _ADAPTERS


class Loan:
    """A psycopg connection with riverrun's settings, until `give_back` restores the application's.

    Changing the settings sends nothing to the server: psycopg uses them for its next BEGIN.

    Args:
        driver: A connection on which no transaction is open.
        autocommit: Whether each statement is a transaction. Otherwise the next transaction runs at
            READ COMMITTED and may write, whatever the defaults of database, role and engine are.
    """

    __slots__ = ("_driver", "_old")

    def __init__(self, driver: psycopg.Connection[Any], *, autocommit: bool) -> None:
        self._driver = driver
        self._old: list[tuple[str, Any]] = []
        self._set("cursor_factory", OwnCursor)
        self._set("autocommit", autocommit)
        if autocommit:
            return
        self._set("isolation_level", IsolationLevel.READ_COMMITTED)
        read_only = driver.read_only or _is_on(driver, b"default_transaction_read_only")
        # A standby would refuse a BEGIN READ WRITE, with an error that does not give the reason.
        if read_only and not _is_on(driver, b"in_hot_standby"):
            self._set("read_only", False)

    def _set(self, name: str, value: object) -> None:
        old = getattr(self._driver, name)
        if old != value:
            self._old.append((name, old))
            setattr(self._driver, name, value)

    def give_back(self) -> bool:
        """Restore the old settings. Return whether the connection can be used again."""
        try:
            for name, value in reversed(self._old):
                setattr(self._driver, name, value)
        except psycopg.Error:  # A statement is still in progress.
            return False
        return not self._driver.closed


def is_idle(driver: psycopg.Connection[Any]) -> bool:
    """Return whether no transaction is open, so that the connection's settings can be changed."""
    return driver.pgconn.transaction_status == TransactionStatus.IDLE


_committed: WeakKeyDictionary[psycopg.Connection[Any], bool] = WeakKeyDictionary()


def suits(driver: psycopg.Connection[Any]) -> bool:
    """Return whether a statement in autocommit runs as it would in riverrun's own transaction.

    If not, a BEGIN must set what differs. The default isolation level is queried once per
    connection.

    Args:
        driver: A connection in autocommit.
    """
    if _is_on(driver, b"default_transaction_read_only") or not speaks_utf8(driver):
        return False
    known = _committed.get(driver)
    if known is None:
        cursor = OwnCursor(driver).execute("SHOW default_transaction_isolation")
        known = _committed[driver] = cursor.fetchone() == ("read committed",)
    return known


def speaks_utf8(driver: psycopg.Connection[Any]) -> bool:
    """Return whether the connection can send and receive every text."""
    return driver.pgconn.parameter_status(b"client_encoding") == b"UTF8"


def _is_on(driver: psycopg.Connection[Any], parameter: bytes) -> bool:
    # PostgreSQL reports these parameters whenever they change, so no query is needed.
    return driver.pgconn.parameter_status(parameter) == b"on"


@contextmanager
def lent(connection: Connection, *, single: bool = False) -> Iterator[None]:
    """Set `connection` for riverrun's own transactions within the block, then restore it.

    Args:
        connection: A connection of the application's pool.
        single: Whether each transaction is one statement.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        with in_transactions(connection):
            yield
        return
    # Nothing can be set if a listener of the application's has begun a transaction.
    try:
        loan = _loan(driver, single=single) if is_idle(driver) else None
    except psycopg.Error:
        # SQLAlchemy did not see that the connection is lost, and its pool would log a reset of it.
        connection.invalidate()
        raise
    try:
        yield
    finally:
        if connection.in_transaction() and not connection.invalidated:
            connection.rollback()
        if loan is not None and not loan.give_back() and not connection.invalidated:
            connection.invalidate()


def _loan(driver: psycopg.Connection[Any], *, single: bool) -> Loan:
    if single:
        loan = Loan(driver, autocommit=True)
        if suits(driver):
            return loan
        loan.give_back()
    return Loan(driver, autocommit=False)


@contextmanager
def in_transactions(connection: Connection) -> Iterator[None]:
    """Take `connection` out of autocommit within the block, then restore it.

    This changes the driver's own setting. SQLAlchemy's option `isolation_level` would not do: it
    restores the level that SQLAlchemy believes to be the default.
    """
    changed = _leave_autocommit(connection)
    try:
        yield
    finally:
        if changed:
            _enter_autocommit(connection)


@asynccontextmanager
async def in_transactions_async(connection: "AsyncConnection") -> AsyncIterator[None]:
    """Do the same as `in_transactions`, for an AsyncConnection."""
    changed = await connection.run_sync(_leave_autocommit)
    try:
        yield
    finally:
        if changed:
            await connection.run_sync(_enter_autocommit)


def _leave_autocommit(connection: Connection) -> bool:
    dbapi: Any = connection.connection.dbapi_connection
    if not getattr(dbapi, "autocommit", False) or connection.in_transaction():
        return False
    dbapi.autocommit = False
    if dbapi.autocommit:
        # SQLAlchemy's asyncpg dialect keeps the level last set, and the engine's is AUTOCOMMIT.
        dbapi.isolation_level = None
    return True


def _enter_autocommit(connection: Connection) -> None:
    if connection.closed or connection.invalidated:
        return
    connection.rollback()
    dbapi: Any = connection.connection.dbapi_connection
    try:
        dbapi.autocommit = True
    except connection.dialect.loaded_dbapi.Error:
        connection.invalidate()


_AS_IT_IS = nullcontext()


def plain_results(driver: Any) -> AbstractContextManager[None]:
    """Make statements in the block return rows as SQLAlchemy expects them.

    Args:
        driver: The driver's connection, of the application's pool. Only psycopg's are changed.
    """
    own: type[Any]
    default: type[Any]
    match driver:
        case psycopg.Connection():
            own, default = OwnCursor, psycopg.Cursor
        case psycopg.AsyncConnection():
            own, default = _OwnAsyncCursor, psycopg.AsyncCursor
        case _:
            return _AS_IT_IS
    factory = driver.cursor_factory
    if factory is own or (
        factory is default
        and driver.row_factory is tuple_row
        and (driver.pgconn.parameter_status(b"DateStyle") or b"").startswith(b"ISO")
    ):
        return _AS_IT_IS
    return _with_factory(driver, own)


@contextmanager
def _with_factory(driver: Any, own: type[Any]) -> Iterator[None]:
    factory = driver.cursor_factory
    driver.cursor_factory = own
    try:
        yield
    finally:
        driver.cursor_factory = factory

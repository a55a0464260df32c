"""Connections of the host's pool: set as riverrun's statements need them, then put back."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
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
    # Not a copy of psycopg.adapters: what an application registers there is for its own statements.
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


_ADAPTERS.register_loader(0, TextBinaryLoader)  # what psycopg does not know: an enum's value


_TIMES_AS_NUMBERS = AdaptersMap(_ADAPTERS)


_TIMES_AS_NUMBERS.register_loader("timestamptz", Int8BinaryLoader)


class OwnCursor(psycopg.Cursor[Any]):
    """psycopg's cursor with its defaults, whatever factories and adapters the connection has.

    Results are binary, which no setting of the session changes: as text a time depends on
    DateStyle, and psycopg reads only one style.
    """

    def __init__(self, connection: psycopg.Connection[Any], **_: object) -> None:
        super().__init__(connection, row_factory=tuple_row)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The default adapters of psycopg."""
        return _ADAPTERS


class TimesAsNumbers(OwnCursor):
    """An OwnCursor that returns a time as PostgreSQL keeps it: microseconds since the year 2000."""

    @property
    def adapters(self) -> AdaptersMap:
        """The default adapters, apart from the one for timestamptz."""
        return _TIMES_AS_NUMBERS


class _OwnAsyncCursor(psycopg.AsyncCursor[Any]):
    """As OwnCursor."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], **_: object) -> None:
        super().__init__(connection, row_factory=tuple_row)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The default adapters of psycopg."""
        return _ADAPTERS


class Loan:
    """A connection of psycopg with settings of riverrun's, until `give_back` restores the host's.

    Setting them sends nothing to the server: psycopg only words its next BEGIN by them.

    Args:
        driver: A connection on which no transaction is open.
        autocommit: Whether each statement is a transaction. Otherwise the next transaction runs at
            READ COMMITTED and may write, whatever the defaults of database, role and engine are.
    """

    __slots__ = ("_driver", "_found")

    def __init__(self, driver: psycopg.Connection[Any], *, autocommit: bool) -> None:
        self._driver = driver
        self._found: list[tuple[str, Any]] = []
        self._set("cursor_factory", OwnCursor)
        self._set("autocommit", autocommit)
        if autocommit:
            return
        self._set("isolation_level", IsolationLevel.READ_COMMITTED)
        read_only = driver.read_only or _is_on(driver, b"default_transaction_read_only")
        # A standby refuses to begin such a transaction, with an error that does not say why.
        if read_only and not _is_on(driver, b"in_hot_standby"):
            self._set("read_only", False)

    def _set(self, name: str, value: object) -> None:
        found = getattr(self._driver, name)
        if found != value:
            self._found.append((name, found))
            setattr(self._driver, name, value)

    def give_back(self) -> bool:
        """Restore what was found; return whether that was possible."""
        try:
            for name, value in reversed(self._found):
                setattr(self._driver, name, value)
        except psycopg.Error:  # It was left amid a statement.
            return False
        return not self._driver.closed


def is_idle(driver: psycopg.Connection[Any]) -> bool:
    """Return whether no transaction is open, and so the connection's settings can change."""
    return driver.pgconn.transaction_status == TransactionStatus.IDLE


_committed: WeakKeyDictionary[psycopg.Connection[Any], bool] = WeakKeyDictionary()


def suits(driver: psycopg.Connection[Any]) -> bool:
    """Return whether a statement in autocommit runs here as in a transaction of riverrun's own.

    Where it does not, a BEGIN must say what differs. The default isolation level is asked for once
    in a connection's life.

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
    """Return whether every text can be sent to the server, and be read from it."""
    return driver.pgconn.parameter_status(b"client_encoding") == b"UTF8"


def _is_on(driver: psycopg.Connection[Any], parameter: bytes) -> bool:
    # PostgreSQL reports these whenever they change, so this sends nothing.
    return driver.pgconn.parameter_status(parameter) == b"on"


@contextmanager
def lent(connection: Connection, *, single: bool = False) -> Iterator[None]:
    """Have the transactions on `connection` be riverrun's own, then restore its settings.

    Args:
        connection: A connection of the host's pool.
        single: Whether each transaction is one statement.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        with in_transactions(connection):
            yield
        return
    # Amid a transaction that a listener of the host's has begun nothing can be set.
    loan = _loan(driver, single=single) if is_idle(driver) else None
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
    """Have `connection` not be in autocommit within the block, and as it was after it.

    SQLAlchemy restores what its option `isolation_level` has changed to the level that it believes
    to be the default, so here the driver's own setting is changed and restored.
    """
    changed = _leave_autocommit(connection)
    try:
        yield
    finally:
        if changed:
            _enter_autocommit(connection)


@asynccontextmanager
async def in_transactions_async(connection: "AsyncConnection") -> AsyncIterator[None]:
    """As `in_transactions`."""
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
        # SQLAlchemy's asyncpg returns to the level last set, and the engine's is AUTOCOMMIT.
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


@contextmanager
def plain_results(driver: Any) -> Iterator[None]:
    """Have statements within return rows as SQLAlchemy expects them, on a connection of the host's.

    Args:
        driver: The driver's connection. Only psycopg's are changed.
    """
    own: type[Any]
    default: type[Any]
    match driver:
        case psycopg.Connection():
            own, default = OwnCursor, psycopg.Cursor
        case psycopg.AsyncConnection():
            own, default = _OwnAsyncCursor, psycopg.AsyncCursor
        case _:
            yield
            return
    found = driver.cursor_factory
    if found is own or (
        found is default
        and driver.row_factory is tuple_row
        and (driver.pgconn.parameter_status(b"DateStyle") or b"").startswith(b"ISO")
    ):
        yield
        return
    driver.cursor_factory = own
    try:
        yield
    finally:
        driver.cursor_factory = found

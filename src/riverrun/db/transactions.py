"""Whose transaction it is: a Session's, a Connection's, or, given an Engine, one of our own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias, cast

import psycopg
from sqlalchemy import (
    ClauseElement,
    Connection,
    Dialect,
    Engine,
    Executable,
    Result,
    TwoPhaseTransaction,
    delete,
    false,
)
from sqlalchemy.exc import DBAPIError, MissingGreenlet, ProgrammingError
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Session, scoped_session

from riverrun.db.driver import (
    Loan,
    OwnCursor,
    TimesAsNumbers,
    is_idle,
    lent,
    plain_results,
    speaks_utf8,
    suits,
)
from riverrun.db.engines import check_pool
from riverrun.db.statement_timeout import SINGLE, Waiting
from riverrun.errors import NotATransaction, SchemaMissing, TransactionClosed
from riverrun.models import Job
from riverrun.wire.characters import encodings_of

Tx: TypeAlias = Session | scoped_session[Any] | Connection | Engine
"""What every verb takes first. A Session or Connection is joined, an Engine is not shared."""


# Undefined table, type, function, column and schema.
_MISSING = frozenset({"42P01", "42704", "42883", "42703", "3F000"})


_READ_ONLY = "25006"
"""A read-only transaction: of our own none is, so it is the server that is."""


_FROM_ASYNC = "From async code: await client.insert_async(...), or await session.run_sync(...)"


# Work on Job, and a write: a session that routes by mapper or by statement is to know. The mapper,
# not the class: SQLAlchemy itself passes one to get_bind(), so that is what a host's own takes.
_WRITE: dict[str, Any] = {"mapper": Job.__mapper__, "clause": delete(Job)}


class Transaction:
    """An open transaction that a verb may execute its statements in, and do nothing else to."""

    def __init__(self, tx: Session | Connection | Engine, schema: str | None) -> None:
        self._tx = tx
        self._begun: Connection | None = None
        self._schema = schema
        self._options: dict[str, Any] = {"autoflush": False, "synchronize_session": False}
        if schema is not None:
            self._options["schema_translate_map"] = {None: schema}

    @property
    def connection(self) -> Connection:
        """The connection beneath; asking for it flushes nothing."""
        # No cached_property: until Python 3.12 one lock is held while any of them is computed, and
        # to wait here for a connection may take as long as other threads keep theirs.
        if self._begun is None:
            try:
                self._begun = self._connect()
            except MissingGreenlet as error:
                # The sync side of something async, outside of its run_sync().
                raise NotATransaction(type(self._tx).__name__, _FROM_ASYNC) from error
        return self._begun

    def _connect(self) -> Connection:
        if isinstance(self._tx, Session):
            return self._tx.connection(bind_arguments=_bind_arguments(self._tx))
        assert isinstance(self._tx, Connection)  # noqa: S101  an Engine's is an OwnTransaction
        return self._tx

    @property
    def engine(self) -> Engine:
        """The engine that the transaction is on."""
        return self.connection.engine

    @property
    def in_two_phases(self) -> bool:
        """Whether its host commits it in two phases."""
        return isinstance(self.connection.get_transaction(), TwoPhaseTransaction)

    @property
    def encodings(self) -> tuple[str, ...]:
        """The encodings that text must pass on its way to the tables."""
        return encodings_of(self.connection)

    def execute(self, statement: Executable, params: Mapping[str, Any]) -> Result[Any]:
        """Execute `statement` without flushing what the host has not flushed.

        Raises:
            SchemaMissing: If a table, type or function of the schema is not there.
        """
        connection = self.connection
        try:
            with plain_results(connection.connection.driver_connection):
                if isinstance(self._tx, Session) and self._followed:
                    return self._tx.execute(
                        statement,
                        params,
                        execution_options=self._options,
                        bind_arguments=_bind_arguments(self._tx),
                    )
                # For a Session too: its own execute() takes as long again, and has nobody to tell.
                return connection.execute(statement, params, execution_options=self._options)
        except ProgrammingError as error:
            if missing := self.missing(error.orig):
                raise missing from error
            raise

    def rows(
        self, statement: Any, params: Mapping[str, Any], *, times: bool = False
    ) -> Sequence[Sequence[Any]]:
        """Execute a statement that runs often, and return its rows, as the driver has them.

        Args:
            statement: Of types that the driver knows, in binds and columns.
            params: Its binds.
            times: Whether it returns times, of many rows: then each is what `time_of` takes.

        Raises:
            SchemaMissing: If a table, type or function of the schema is not there.
            sqlalchemy.exc.DBAPIError: If the database refuses it, as from `execute`.
        """
        del times  # SQLAlchemy reads them as ever
        return self.execute(statement, params).all()

    def begin(self) -> None:
        """Begin what SQLAlchemy begins with a first statement, for those it does not see.

        Without it a Connection's commit() believes that there is nothing to commit.
        """
        if not self.connection.in_transaction():
            self.connection.begin()
        if self._followed:
            self.execute(delete(Job).where(false()), {})

    @property
    def _followed(self) -> bool:
        """Whether somebody follows what the session executes.

        Such as zope.sqlalchemy, which rolls back where it has seen no write.
        """
        return isinstance(self._tx, Session) and bool(self._tx.dispatch.do_orm_execute)

    def missing(self, orig: BaseException | None) -> SchemaMissing | None:
        """Return what to raise if `orig`, the driver's error, says that the schema is missing."""
        code = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
        if code not in _MISSING:
            return None
        database = self.engine.url.database or "?"
        return SchemaMissing(str(orig).splitlines()[0], database, self._schema)


def _bind_arguments(session: Session) -> dict[str, Any]:
    """Return by what `session` chooses the database for jobs.

    Raises:
        NotATransaction: If it is a ShardedSession that chooses none.
    """
    if not isinstance(session, ShardedSession):
        return _WRITE
    # By itself it would execute on each shard that its execute_chooser names: one job in each.
    cause: Exception | None = None
    try:
        shard_id = session.shard_chooser(Job.__mapper__, None, _WRITE["clause"])
    except Exception as error:
        # Choosers look at an instance as a rule, and there is none.
        shard_id, cause = None, error
    if shard_id is None:
        problem = "Its shard_chooser chooses no shard for jobs"
        advice = 'pass the connection of one: session.connection(bind_arguments={"shard_id": ...})'
        raise NotATransaction(type(session).__name__, f"{problem}; {advice}") from cause
    return {**_WRITE, "shard_id": shard_id}


class OwnTransaction(Transaction):
    """A transaction of our own: begun on its engine once something asks for its connection.

    It runs at READ COMMITTED, on any engine, and the connection goes back as it was found.

    What runs often goes to the driver, unless the engine's statements have listeners: over a small
    one SQLAlchemy takes several times as long as the driver. Where each
    transaction is one statement there is no BEGIN, and for that a connection of the pool is enough.
    """

    def __init__(self, engine: Engine, schema: str | None, stack: ExitStack) -> None:
        super().__init__(engine, schema)
        self._engine = engine
        self._stack = stack
        self._last: psycopg.Connection[Any] | None = None  # what `rows` used last

    def _connect(self) -> Connection:
        return self._stack.enter_context(own_connection(self._engine))

    @property
    def in_two_phases(self) -> bool:
        """Never; asking for it begins nothing."""
        return False

    @property
    def engine(self) -> Engine:
        """The engine; asking for it begins nothing."""
        return self._engine

    @property
    def encodings(self) -> tuple[str, ...]:
        """As a Transaction's; begins nothing."""
        if self._begun is not None:
            return encodings_of(self._begun, own=True)
        with self._engine.connect() as connection:
            return encodings_of(connection, own=True)

    def rows(
        self, statement: Any, params: Mapping[str, Any], *, times: bool = False
    ) -> Sequence[Sequence[Any]]:
        """As a Transaction's."""
        engine = self._engine
        if engine.dialect.driver != "psycopg" or _heard(engine):
            return super().rows(statement, params, times=times)
        options = {**engine.get_execution_options(), **self._options}
        schema = options.get("schema_translate_map", {}).get(None)
        query, constants = _compiled(statement, engine.dialect, schema)
        try:
            with self._driver(single=_is_single(engine)) as driver:
                cursor = TimesAsNumbers(driver) if times else OwnCursor(driver)
                return cursor.execute(query, {**constants, **params}).fetchall()
        except psycopg.Error as error:
            lost = self._last is not None and self._last.closed
            if lost:
                self._lost()
            if missing := self.missing(error):
                raise missing from error
            raise DBAPIError.instance(
                query,
                dict(params),
                error,
                psycopg.Error,
                hide_parameters=engine.hide_parameters,
                connection_invalidated=lost,
                dialect=engine.dialect,
            ) from error

    def _lost(self) -> None:
        # SQLAlchemy has not met it, and would leave alone all that is as old in the pool.
        if self._begun is not None:
            # Now, or its rollback would, and its error take the place of the driver's.
            with suppress(DBAPIError):
                self.connection.exec_driver_sql("SELECT 1")
        else:
            self._engine.dispose()

    @contextmanager
    def _driver(self, *, single: bool) -> Iterator[psycopg.Connection[Any]]:
        if single and self._begun is None:
            with in_autocommit(self._engine) as driver:
                self._last = driver
                if driver.autocommit and suits(driver):
                    yield driver
                    return
        # Not known before: what it takes to connect, SQLAlchemy reports itself.
        self._last = None
        connection = self.connection
        self._last = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        yield self._last


@contextmanager
def in_autocommit(engine: Engine, *, alone: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection of the engine's pool in autocommit, and restore its settings.

    Args:
        engine: The engine.
        alone: Whether to roll back what a listener of the host's has begun on the connection.
            Otherwise such a connection comes as it is, and not in autocommit.
    """
    pooled = engine.raw_connection()
    try:
        driver = cast("psycopg.Connection[Any]", pooled.driver_connection)
        if alone:
            driver.rollback()
        loan = Loan(driver, autocommit=True) if is_idle(driver) else None
        try:
            yield driver
        finally:
            if loan is not None and not loan.give_back():
                # Closed, or left amid a statement: no connection for anybody else.
                pooled.invalidate()
    finally:
        pooled.close()


def fetch(
    driver: psycopg.Connection[Any], engine: Engine, statement: Any, params: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    """Execute a statement that needs no schema on a connection of `engine`, and return its rows."""
    query, constants = _compiled(statement, engine.dialect, None)
    return OwnCursor(driver).execute(query, {**constants, **params}).fetchall()


@contextmanager
def own_connection(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction of our own, which ends with the block."""
    with (
        engine.connect() as connection,
        lent(connection, single=_is_single(engine)),
        # A listener of the host's may have begun it already, as one that sets the search path.
        connection.get_transaction() or connection.begin(),
    ):
        driver = connection.connection.driver_connection
        if not isinstance(driver, psycopg.Connection):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        elif not speaks_utf8(driver):
            OwnCursor(driver).execute("SET LOCAL client_encoding TO 'UTF8'")
        yield connection


def _is_single(engine: Engine) -> bool:
    """Return whether each transaction of our own on `engine` is one statement."""
    return bool(engine.get_execution_options().get(SINGLE))


def _heard(engine: Engine) -> bool:
    """Return whether somebody hears of each statement, as tracing and the engine's log do."""
    dispatch: Any = engine.dispatch
    return bool(
        dispatch.before_cursor_execute
        or dispatch.after_cursor_execute
        or dispatch.before_execute
        or dispatch.after_execute
        or engine.echo
    )


_TIMES_FROM = datetime(2000, 1, 1, tzinfo=UTC)


def time_of(value: datetime | int) -> datetime:
    """Return a time of `Transaction.rows`, in UTC.

    A time takes the driver ten times as long as a number, and most are never looked at.

    Args:
        value: The time, or as PostgreSQL has it: microseconds since the year 2000.
    """
    if isinstance(value, int):
        return _TIMES_FROM + timedelta(microseconds=value)
    return value.astimezone(UTC)


@lru_cache(maxsize=256)
def _compiled(
    statement: ClauseElement, dialect: Dialect, schema: str | None
) -> tuple[str, dict[str, Any]]:
    """Return a statement as the driver takes it, and the binds that are the same each time."""
    places: Any = {} if schema is None else {"schema_translate_map": {None: schema}}
    compiled = statement.compile(
        dialect=dialect, render_schema_translate=schema is not None, **places
    )
    return str(compiled), dict(compiled.params)


@contextmanager
def joined(tx: Tx, schema: str | None = None) -> Iterator[Transaction]:
    """Yield the transaction that `tx` stands for.

    A Session's or Connection's is left as it is found: not committed, not rolled back, not closed.
    An Engine's is begun here, committed at the end, and rolled back on an exception; where the
    server takes no writes, the engine's pool is left, as its address may lead elsewhere by now.

    Raises:
        InvalidOption: If the Engine's pool does not give each transaction its own connection.
        NotATransaction: If `tx` is none of these.
        TransactionClosed: If it is closed.
    """
    if isinstance(tx, Engine):
        check_pool(tx)
        try:
            with Waiting(tx), ExitStack() as stack:
                yield OwnTransaction(tx, schema, stack)
        except DBAPIError as error:
            # A standby keeps its connections for as long as it lives, and a pool would, too.
            if getattr(error.orig, "sqlstate", None) == _READ_ONLY:
                tx.dispose()
            raise
        return
    yield Transaction(session_or_connection(tx), schema)


def session_or_connection(tx: object) -> Session | Connection:
    """Return the Session or Connection that `tx` is, or is a registry of.

    Raises:
        NotATransaction: If it is neither.
        TransactionClosed: If it is closed for good.
    """
    if isinstance(tx, scoped_session):
        tx = tx()
    if isinstance(tx, Connection):
        if tx.closed:
            raise TransactionClosed("Connection")
        return tx
    if isinstance(tx, Session):
        # Only a session made with close_resets_only=False, or after its `with` block in such a
        # one, is closed for good; any other begins anew, as SQLAlchemy has it.
        if getattr(tx, "_close_state", None) is not None and _is_closed(tx):
            raise TransactionClosed("Session")
        return tx
    name = type(tx).__name__
    if hasattr(tx, "run_sync") or hasattr(tx, "sync_engine") or name.startswith("async_"):
        raise NotATransaction(name, _FROM_ASYNC)
    advice = "The transaction comes first, then what to do in it"
    if hasattr(type(tx), "kind"):
        advice = "The transaction comes first, then the args: insert(session, args)"
    raise NotATransaction(name, advice)


def _is_closed(session: Session) -> bool:
    return bool(session._close_state.name == "CLOSED")

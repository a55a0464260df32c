"""The transaction of a verb: a Session's, a Connection's, or, on an Engine, riverrun's own.

One module, although long: a verb gets any of them from `joined`, and uses all in the same way.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, TypeVar, cast

import psycopg
from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    Result,
    TwoPhaseTransaction,
    delete,
    false,
)
from sqlalchemy.exc import (
    DBAPIError,
    MissingGreenlet,
    ProgrammingError,
    UnboundExecutionError,
)
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Session, scoped_session

from riverrun.db.commit_hooks import Call, after_commit, is_pending, make_calls
from riverrun.db.direct import compiled, fetched, has_listeners, takes_statements
from riverrun.db.driver import (
    Loan,
    OwnCursor,
    is_idle,
    lent,
    plain_results,
    speaks_utf8,
    suits,
)
from riverrun.db.engines import check_pool
from riverrun.db.kept import KEPT, Kept
from riverrun.db.statement_timeout import SINGLE, Waiting
from riverrun.errors import NotATransaction, SchemaMissing, TransactionClosed
from riverrun.models import Job
from riverrun.wire.characters import encodings_of

Tx: TypeAlias = Session | scoped_session[Any] | Connection | Engine
"""The first argument of every verb. A Session's or Connection's transaction is joined; on an Engine
the verb begins and commits its own."""


_NO_SCHEMA = "3F000"

# SQLSTATEs of an undefined table, type, function, column and schema.
_MISSING = frozenset({"42P01", "42704", "42883", "42703", _NO_SCHEMA})


_READ_ONLY = "25006"
"""The SQLSTATE of a write in a read-only transaction. Riverrun's own transactions are never
read-only, so the server is."""


_FROM_ASYNC = "From async code: await client.insert_async(...), or await session.run_sync(...)"


# A session that chooses its database by mapper or by statement must see that this is a write to
# Job. It gets the mapper and not the class, because SQLAlchemy itself passes mappers to get_bind().
_WRITE: dict[str, Any] = {"mapper": Job.__mapper__, "clause": delete(Job)}


L = TypeVar("L")

_own_listeners: set[object] = set()
"""Riverrun's own listeners to what sessions execute. They need not see riverrun's statements."""


def own_listener(listener: L) -> L:
    """Mark a listener as riverrun's own: verbs still send statements directly to psycopg."""
    _own_listeners.add(listener)
    return listener


class Transaction:
    """An open transaction, in which a verb executes statements. The verb never ends it."""

    def __init__(self, tx: Session | Connection | Engine, schema: str | None) -> None:
        self._tx = tx
        self._begun: Connection | None = None
        self._schema = schema
        # Not the connection's options for reading many rows: an INSERT has no server-side cursor.
        self._options: dict[str, Any] = {
            "autoflush": False,
            "synchronize_session": False,
            "stream_results": False,
            "yield_per": None,
        }
        if schema is not None:
            self._options["schema_translate_map"] = {None: schema}

    @property
    def connection(self) -> Connection:
        """The transaction's connection. Getting it does not flush the session."""
        # Not a cached_property: before Python 3.12 all threads share one lock for computing it, and
        # this may wait for as long as other threads keep their connections.
        if self._begun is None:
            try:
                self._begun = self._connect()
            except MissingGreenlet as error:
                # The sync counterpart of an async object, used outside of run_sync().
                raise NotATransaction(type(self._tx).__name__, _FROM_ASYNC) from error
        return self._begun

    def _connect(self) -> Connection:
        if isinstance(self._tx, Session):
            try:
                return self._tx.connection(bind_arguments=bind_arguments(self._tx))
            except UnboundExecutionError as error:
                raise without_engine(self._tx) from error
        assert isinstance(self._tx, Connection)  # noqa: S101  an Engine's is an OwnTransaction
        return self._tx

    @property
    def engine(self) -> Engine:
        """The engine of the transaction."""
        return self.connection.engine

    @property
    def in_two_phases(self) -> bool:
        """Whether the application commits the transaction in two phases."""
        return isinstance(self.connection.get_transaction(), TwoPhaseTransaction)

    @property
    def encodings(self) -> tuple[str, ...]:
        """The encodings that text passes on its way to the tables."""
        return encodings_of(self.connection)

    def execute(self, statement: Executable, params: Mapping[str, Any]) -> Result[Any]:
        """Execute `statement` without flushing the session.

        Raises:
            SchemaMissing: If a table, type or function of the schema does not exist.
        """
        connection = self.connection
        try:
            with plain_results(connection.connection.driver_connection):
                if isinstance(self._tx, Session) and self._has_statement_listeners:
                    return self._tx.execute(
                        statement,
                        params,
                        execution_options=self._options,
                        bind_arguments=bind_arguments(self._tx),
                    )
                # For a Session, too: its own execute() takes twice as long and has no listener.
                return connection.execute(statement, params, execution_options=self._options)
        except ProgrammingError as error:
            if missing := self.missing(error.orig):
                raise missing from error
            raise

    def rows(
        self, statement: Any, params: Mapping[str, Any], *, times: bool = False
    ) -> Sequence[Sequence[Any]]:
        """Execute a statement that runs often, and return its rows as the driver returns them.

        It goes directly to psycopg, unless the application listens to statements or logs them:
        SQLAlchemy takes as long for a small statement as the server. If the transaction must be
        rolled back, SQLAlchemy executes it, and raises the error for that.

        Args:
            statement: A statement whose binds and columns have types that the driver knows.
            params: Its binds.
            times: Whether it returns times in many rows. Each time is then an argument for
                `time_of`.

        Raises:
            SchemaMissing: If a table, type or function of the schema does not exist.
            sqlalchemy.exc.DBAPIError: If the database refuses it, as from `execute`.
        """
        connection = self.connection
        driver = connection.connection.driver_connection
        if (
            not isinstance(driver, psycopg.Connection)
            or has_listeners(connection)
            or self._has_statement_listeners
            or not takes_statements(connection)
        ):
            return self.execute(statement, params).all()  # with times as datetimes
        query, binds = self._query(statement, params, connection)
        try:
            return fetched(driver, query, binds, times=times)
        except psycopg.Error as error:
            raise self.raised(error, query, params, driver) from error
        except BaseException as error:
            self.interrupted(error)
            raise

    def _query(
        self, statement: Any, params: Mapping[str, Any], bind: Engine | Connection
    ) -> tuple[str, dict[str, Any]]:
        """Return a statement and its binds as the driver takes them."""
        query, constants = compiled(statement, bind.dialect, self.schema_on(bind))
        return query, {**constants, **params}

    def schema_on(self, bind: Engine | Connection) -> str | None:
        """Return the schema that SQLAlchemy would name for the tables; None if it names none."""
        options = {**bind.get_execution_options(), **self._options}
        places = options.get("schema_translate_map") or {}
        return places[None] or bind.dialect.default_schema_name if None in places else None

    def interrupted(self, error: BaseException) -> None:
        """Give the connection up if a statement was interrupted, such as by gevent.Timeout.

        SQLAlchemy does so, too: the statement may still be in progress, and a rollback would fail.
        """
        if not isinstance(error, Exception) and self._begun is not None:
            self._begun.invalidate(error)

    def _notice_loss(self) -> None:
        """Make SQLAlchemy notice now that the connection is lost.

        Otherwise its rollback would notice, and its error would replace the driver's.
        """
        with suppress(DBAPIError):
            self.connection.exec_driver_sql("SELECT 1")

    def raised(
        self,
        error: psycopg.Error,
        query: str,
        params: Mapping[str, Any],
        driver: psycopg.Connection[Any],
    ) -> Exception:
        """Return what SQLAlchemy would raise for the driver's `error`, once it knows of a loss."""
        if driver.closed:
            self._notice_loss()
        return self._wrapped(error, query, params, lost=driver.closed)

    def _wrapped(
        self, error: psycopg.Error, query: str, params: Mapping[str, Any], *, lost: bool
    ) -> Exception:
        """Return the driver's `error` as SQLAlchemy wraps it, or a SchemaMissing."""
        engine = self.engine
        return self.missing(error) or DBAPIError.instance(
            query,
            dict(params),
            error,
            psycopg.Error,
            hide_parameters=engine.hide_parameters,
            connection_invalidated=lost,
            dialect=engine.dialect,
        )

    def after_commit(self, call: Call, item: Hashable, *, unless: Call | None = None) -> None:
        """Call `call(item)` once the transaction has committed; see `commit_hooks.after_commit`.

        Args:
            call: What to call. It must not wait, and what it raises is logged.
            item: What to call it with.
            unless: Another function. Nothing is done if that is to be called with the item.
        """
        after_commit(self.connection, call, item, unless=unless)

    def is_pending(self, call: Call, item: Hashable) -> bool:
        """Return whether `call(item)` is to be made once the transaction has committed."""
        return is_pending(self.connection, call, item)

    def begin(self) -> None:
        """Begin the transaction before a statement that SQLAlchemy does not see.

        SQLAlchemy itself begins it with its first statement. Otherwise a Connection's commit()
        would find nothing to commit. If the transaction takes no statements, SQLAlchemy raises the
        error for that.
        """
        if not takes_statements(self.connection) or self._has_statement_listeners:
            self.execute(delete(Job).where(false()), {})

    @property
    def _has_statement_listeners(self) -> bool:
        """Whether the session has `do_orm_execute` listeners.

        zope.sqlalchemy has one, and rolls back unless that listener has seen a write.
        """
        if not isinstance(self._tx, Session):
            return False
        return not _own_listeners.issuperset(self._tx.dispatch.do_orm_execute)

    def missing(self, orig: BaseException | None) -> SchemaMissing | None:
        """Return a SchemaMissing if the driver's error `orig` means that; otherwise None."""
        code = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
        if code not in _MISSING:
            return None
        text = str(orig).splitlines()[0]
        # A criterion or a select of the application's may name what is missing of its own.
        if "river" not in text.lower() and code != _NO_SCHEMA:
            return None
        database = self.engine.url.database or "?"
        return SchemaMissing(text, database, self._schema)


def bind_arguments(session: Session) -> dict[str, Any]:
    """Return the arguments by which `session` chooses the database for jobs.

    Raises:
        NotATransaction: If it is a ShardedSession that does not choose one.
    """
    if not isinstance(session, ShardedSession):
        return _WRITE
    # Without a shard_id it would insert the job on each shard that its execute_chooser returns.
    cause: Exception | None = None
    try:
        shard_id = session.shard_chooser(Job.__mapper__, None, _WRITE["clause"])
    except Exception as error:
        # Most choosers look at the instance, and there is none.
        shard_id, cause = None, error
    if shard_id is None:
        problem = "Its shard_chooser chooses no shard for jobs"
        advice = 'pass the connection of one: session.connection(bind_arguments={"shard_id": ...})'
        raise NotATransaction(type(session).__name__, f"{problem}; {advice}") from cause
    return {**_WRITE, "shard_id": shard_id}


def without_engine(session: Session) -> NotATransaction:
    """Return the error that says what to do where `session` finds no engine for jobs."""
    given = f"{type(session).__name__} without an engine for jobs"
    advice = "Make it with bind=engine, or add riverrun.models.Base to its binds="
    return NotATransaction(given, advice)


class OwnTransaction(Transaction):
    """A transaction of riverrun's own on an engine. It begins when its connection is first used.

    It runs at READ COMMITTED on any engine, and then restores the connection's settings.

    Statements that run often go directly to the driver, unless the engine has listeners for
    statements: SQLAlchemy takes several times as long as the driver for a small statement. If each
    transaction is one statement, there is no BEGIN, and the connection is in autocommit.
    """

    def __init__(self, engine: Engine, schema: str | None, stack: ExitStack) -> None:
        super().__init__(engine, schema)
        self._engine = engine
        self._stack = stack
        self._calls: list[tuple[Call, Hashable]] = []  # once it has committed
        self._last: psycopg.Connection[Any] | None = None  # the connection that `rows` used last

    def after_commit(self, call: Call, item: Hashable, *, unless: Call | None = None) -> None:
        """Do the same as `Transaction.after_commit`, without looking at the connection."""
        if unless is None or (unless, item) not in self._calls:
            self._calls.append((call, item))

    def is_pending(self, call: Call, item: Hashable) -> bool:
        """Do the same as `Transaction.is_pending`, without looking at the connection."""
        return (call, item) in self._calls

    def committed(self) -> None:
        """Make the calls, because the transaction has committed."""
        make_calls(self._calls)

    def _connect(self) -> Connection:
        return self._stack.enter_context(own_connection(self._engine))

    @property
    def in_two_phases(self) -> bool:
        """Always False. Reading this does not begin the transaction."""
        return False

    @property
    def engine(self) -> Engine:
        """The engine. Reading this does not begin the transaction."""
        return self._engine

    @property
    def encodings(self) -> tuple[str, ...]:
        """The same as `Transaction.encodings`. Reading this does not begin the transaction."""
        if self._begun is not None:
            return encodings_of(self._begun, own=True)
        with self._engine.connect() as connection:
            return encodings_of(connection, own=True)

    def rows(
        self, statement: Any, params: Mapping[str, Any], *, times: bool = False
    ) -> Sequence[Sequence[Any]]:
        """Do the same as `Transaction.rows`, on the driver's connection if possible."""
        engine = self._engine
        if engine.dialect.driver != "psycopg" or has_listeners(engine):
            return super().rows(statement, params, times=times)
        query, binds = self._query(statement, params, engine)
        try:
            if (rows := self._kept_rows(query, binds, times=times)) is not None:
                return rows
            with self._driver(single=_is_single(engine)) as driver:
                return fetched(driver, query, binds, times=times)
        except psycopg.Error as error:
            lost = self._last is not None and self._last.closed
            if lost:
                self._lost()
            raise self._wrapped(error, query, params, lost=lost) from error
        except BaseException as error:
            self.interrupted(error)
            raise

    def _kept_rows(
        self, query: str, binds: Mapping[str, Any], *, times: bool
    ) -> Sequence[Sequence[Any]] | None:
        kept: Kept | None = self._engine.get_execution_options().get(KEPT)
        if kept is None or self._begun is not None or not _is_single(self._engine):
            return None
        with kept.connection(self._engine) as ready:
            if ready is None:
                return None
            self._last = ready.driver
            return ready.rows(query, binds, times=times)

    def _lost(self) -> None:
        # SQLAlchemy did not see this error, so it would go on using the pool's other connections to
        # the lost server.
        if self._begun is not None:
            self._notice_loss()
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
        # None while connecting: SQLAlchemy itself sees those errors.
        self._last = None
        connection = self.connection
        self._last = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        yield self._last


@contextmanager
def in_autocommit(engine: Engine, *, alone: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection of the engine's pool in autocommit, and restore its settings.

    Args:
        engine: The engine.
        alone: Whether to commit a transaction that a listener of the application's has begun on the
            connection, so that a role or search path that it has set stays. Otherwise such a
            connection is yielded as it is, not in autocommit.
    """
    pooled = engine.raw_connection()
    try:
        driver = cast("psycopg.Connection[Any]", pooled.driver_connection)
        if alone:
            driver.commit()
        loan = Loan(driver, autocommit=True) if is_idle(driver) else None
        try:
            yield driver
        finally:
            if loan is not None and not loan.give_back():
                # It is closed, or a statement is still in progress: it cannot be used again.
                pooled.invalidate()
    finally:
        pooled.close()


@contextmanager
def own_connection(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction of riverrun's own, which ends with the block."""
    with (
        engine.connect() as connection,
        lent(connection, single=_is_single(engine)),
        # A listener of the application's, such as one that sets the search path, may have begun it.
        connection.get_transaction() or connection.begin(),
    ):
        driver = connection.connection.driver_connection
        if not isinstance(driver, psycopg.Connection):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        elif not speaks_utf8(driver):
            OwnCursor(driver).execute("SET LOCAL client_encoding TO 'UTF8'")
        yield connection


def _is_single(engine: Engine) -> bool:
    """Return whether each of riverrun's own transactions on `engine` is one statement."""
    return bool(engine.get_execution_options().get(SINGLE))


_TIMES_FROM = datetime(2000, 1, 1, tzinfo=UTC)


def time_of(value: datetime | int) -> datetime:
    """Return a time from `Transaction.rows` as a datetime in UTC.

    Only here is a number converted: the driver takes ten times as long for a time as for a number,
    and most times are never read.

    Args:
        value: A datetime, or the number that PostgreSQL stores: microseconds since the year 2000.
    """
    if isinstance(value, int):
        return _TIMES_FROM + timedelta(microseconds=value)
    return value.astimezone(UTC)


def joined(tx: Tx, schema: str | None = None) -> AbstractContextManager[Transaction]:
    """Return a context manager for the transaction of `tx`.

    A Session's or Connection's transaction is joined: it is not committed, rolled back or closed.
    On an Engine a transaction is begun here, committed at the end, and rolled back on an exception.
    If the server refuses writes, the engine's pool is disposed of, because its address may lead to
    another server now.

    Raises:
        InvalidOption: If the Engine's pool does not give each transaction its own connection.
        NotATransaction: If `tx` is none of the types of `Tx`.
        TransactionClosed: If `tx` is closed.
    """
    if isinstance(tx, Engine):
        return _begun(tx, schema)
    return nullcontext(Transaction(session_or_connection(tx), schema))


@contextmanager
def _begun(engine: Engine, schema: str | None) -> Iterator[Transaction]:
    check_pool(engine)
    try:
        with Waiting(engine), ExitStack() as stack:
            own = OwnTransaction(engine, schema, stack)
            yield own
    except DBAPIError as error:
        # A standby does not close its connections, so the pool would keep them, too.
        if getattr(error.orig, "sqlstate", None) == _READ_ONLY:
            engine.dispose()
        raise
    own.committed()


def session_or_connection(tx: object) -> Session | Connection:
    """Return `tx`, or the current Session if `tx` is a scoped_session.

    Raises:
        NotATransaction: If `tx` is not a Session, scoped_session or Connection.
        TransactionClosed: If it is closed for good.
    """
    if isinstance(tx, scoped_session):
        tx = tx()
    if isinstance(tx, Session):
        # Only a session made with close_resets_only=False is closed for good, by close() or at the
        # end of its `with` block. Any other session begins anew.
        if getattr(tx, "_close_state", None) is not None and _is_closed(tx):
            raise TransactionClosed("Session")
        return tx
    if isinstance(tx, Connection):
        if tx.closed:
            raise TransactionClosed("Connection")
        return tx
    name = type(tx).__name__
    if hasattr(tx, "run_sync") or hasattr(tx, "sync_engine") or name.startswith("async_"):
        raise NotATransaction(name, _FROM_ASYNC)
    advice = "The transaction comes first, then what to do in it"
    if hasattr(type(tx), "kind"):
        advice = "The transaction comes first, then the args: insert(session, args)"
    raise NotATransaction(name, advice)


def _is_closed(session: Session) -> bool:
    return bool(session._close_state._name_ == "CLOSED")

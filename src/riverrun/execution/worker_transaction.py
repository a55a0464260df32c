"""WorkerTransaction: an attempt's transaction whose commit also completes the job."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from riverrun.db.commit_hooks import allow_commit, refuse_commit
from riverrun.db.conflicts import met_another
from riverrun.db.driver import in_transactions, in_transactions_async
from riverrun.db.refusals import sqlstate
from riverrun.db.worker_engine import WorkerEngine, waiting_as
from riverrun.errors import ClientNotReady, JobCancel, JobSnooze, ObjectBusy
from riverrun.execution.attempt_state import AttemptState
from riverrun.execution.worker_session import HeldSession, SessionMakers
from riverrun.outcome import WAITS_KEY
from riverrun.verbs.complete import complete, record_wish
from riverrun.verbs.serialize import count_waiting, lock_for_worker, wake_waiting
from riverrun.verbs.unless_changed import UNCHANGED_KEY, check_unchanged

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

_ABORTED = "25P02"

_TOO_LONG = frozenset({"25P03", "25P04"})
"""The server ended a transaction that was idle or open for longer than the application allows: by
`idle_in_transaction_session_timeout` or `transaction_timeout`."""

_COMMITS_LATER = (
    "the block of ctx.transaction() commits at its end, with the completion of the job; do not "
    "commit its session or connection before. To protect what was written so far from a later "
    "error, use `with session.begin_nested():`"
)

_SWALLOWED = (
    "an earlier error of the session was caught and not rolled back; catch it around "
    "`with session.begin_nested():`, or call session.rollback()"
)


class WorkerTransaction:
    """The transaction behind `ctx.transaction()` and the session parameter of workers.

    An attempt has one at most.

    Args:
        state: The attempt.
        engine: The client's engine; None outside a client.
        schema: The schema of River's tables.
        makers: Makes the sessions that workers take as a parameter.
    """

    def __init__(
        self,
        state: AttemptState,
        *,
        engine: Engine | None,
        schema: str | None,
        makers: SessionMakers,
    ) -> None:
        self._state = state
        self._engine = engine
        self._schema = schema
        self._makers = makers
        self._open = False
        self._wish: JobSnooze | JobCancel | None = None
        self._mark: str | None = None  # identifies the object that only this attempt works on

    @contextmanager
    def block(self, **session_options: Any) -> Iterator[Session]:
        """Yield the Session of `ctx.transaction()`."""
        with self._once(), self.connected() as (connection, mode):
            options = {**session_options, "join_transaction_mode": mode}
            with (
                _one_commit(connection) as allow,
                Session(connection, **options) as session,
                session.begin(),
            ):
                with self._wished():
                    yield session
                self._end(session)
                allow()

    @asynccontextmanager
    async def block_async(
        self, engine: "AsyncEngine", **session_options: Any
    ) -> "AsyncIterator[AsyncSession]":
        """Yield the AsyncSession of `ctx.async_transaction()`."""
        from sqlalchemy.ext.asyncio import AsyncSession

        with self._once():
            async with self.connected_async(engine) as (connection, mode):
                options = {**session_options, "join_transaction_mode": mode}
                assert connection.sync_connection is not None  # noqa: S101  it is open
                with _one_commit(connection.sync_connection) as allow:
                    async with AsyncSession(connection, **options) as session, session.begin():
                        with self._wished():
                            yield session
                        await session.run_sync(self._end)
                        allow()

    @contextmanager
    def session(self, wanted: type[Session]) -> Iterator[Session]:
        """Yield a worker's Session, and commit it with the completion if the block returns.

        Args:
            wanted: The class that the worker asks for.
        """
        with self._once(), self.connected() as (connection, mode):
            session = self._makers.make(wanted, connection, mode)
            held = cast("HeldSession", session)
            try:
                with self._wished():
                    yield session
                held.complete_and_commit(self._end)
            finally:
                held.release()

    @asynccontextmanager
    async def session_async(self, wanted: "type[AsyncSession]") -> "AsyncIterator[AsyncSession]":
        """Yield a worker's AsyncSession, as `session` yields a Session."""
        with self._once():
            async with self.connected_async(None) as (connection, mode):
                session = self._makers.make_async(wanted, connection, mode)
                try:
                    with self._wished():
                        yield session
                    await session.run_sync(_complete_and_commit, self._end)
                finally:
                    await session.run_sync(_release)

    def serialize(self, session: Any, args: object, field: str) -> None:
        """Lock the object in a field of the args until the transaction ends.

        Args:
            session: The worker's session, from `session` or `session_async`.
            args: The worker's args.
            field: The name of the field. If its value is None, nothing is locked.

        Raises:
            ObjectBusy: If another transaction has locked it.
            ObjectGone: If it is gone.
        """
        ref = getattr(args, field)
        if ref is None:
            return
        try:
            self._mark = lock_for_worker(session, ref)
        except ObjectBusy as busy:
            busy.waiting = count_waiting(session, busy.args[1], schema=self._schema)
            raise
        session.held_keep()  # otherwise a rollback by the worker would release the lock
        if self._state.job.metadata.get(WAITS_KEY) is not None:
            # The job does not wait any more, so it must not be found among those that do.
            self._state.set_metadata(WAITS_KEY, None)

    def check_unchanged(self) -> None:
        """Check that the object which the job needs unchanged is unchanged, in a transaction.

        Raises:
            JobSuperseded: If the object has changed.
        """
        needed = self._state.job.metadata[UNCHANGED_KEY]
        with (
            self.connected() as (connection, mode),
            Session(connection, join_transaction_mode=mode) as session,
        ):
            check_unchanged(session, needed)

    async def check_unchanged_async(self) -> None:
        """As `check_unchanged`, for an `async def` worker."""
        from sqlalchemy.ext.asyncio import AsyncSession

        needed = self._state.job.metadata[UNCHANGED_KEY]
        async with (
            self.connected_async(None) as (connection, mode),
            AsyncSession(connection, join_transaction_mode=mode) as session,
        ):
            await session.run_sync(check_unchanged, needed)

    @contextmanager
    def connected(self) -> Iterator[tuple[Connection, Any]]:
        """Yield the transaction's connection, and the `join_transaction_mode` of its session."""
        if self._engine is None:
            raise ClientNotReady("ctx.transaction() needs a client with an engine")
        with (
            waiting_as(self._state),
            self._engine.connect() as connection,
            in_transactions(connection),
            self._noting_conflict(connection),
        ):
            # The session's commit and rollback are those of the connection's transaction.
            yield connection, "control_fully"

    @asynccontextmanager
    async def connected_async(
        self, engine: "AsyncEngine | None"
    ) -> "AsyncIterator[tuple[AsyncConnection, Any]]":
        """As `connected`, for an AsyncEngine. Default: the one of the workers' AsyncSessions."""
        from sqlalchemy.ext.asyncio import AsyncEngine

        if engine is None:
            engine = self._async_engine()
        if isinstance(self._engine, WorkerEngine):
            engine = AsyncEngine(WorkerEngine(engine.sync_engine, self._engine.slots))
        with waiting_as(self._state):
            async with engine.connect() as connection, in_transactions_async(connection):
                assert connection.sync_connection is not None  # noqa: S101  it is open
                with self._noting_conflict(connection.sync_connection):
                    yield connection, "control_fully"

    def _async_engine(self) -> "AsyncEngine":
        bind = None if self._makers.async_ is None else self._makers.async_.kw.get("bind")
        if bind is not None:
            from sqlalchemy.ext.asyncio import AsyncEngine

            engine: AsyncEngine = bind if isinstance(bind, AsyncEngine) else bind.engine
            return engine
        if self._makers.async_engine is None:
            raise ClientNotReady("an AsyncSession for a worker needs a client with an engine")
        return self._makers.async_engine()

    @contextmanager
    def _once(self) -> Iterator[None]:
        state = self._state
        if self._open or state.completed:
            raise ClientNotReady(
                "an attempt has one transaction that completes the job: use ctx.transaction() "
                "once, not nested, and not beside a session parameter"
            )
        self._open = True
        try:
            yield
        finally:
            self._open = False
        state.completed = True
        if self._wish is not None:
            raise self._wish

    @contextmanager
    def _noting_conflict(self, connection: Connection) -> Iterator[None]:
        """Record an error that made the transaction fail although the worker did nothing wrong."""
        state = self._state
        try:
            yield
        except BaseException as error:
            # If the connection was lost, the COMMIT may have succeeded or not. That cannot be known
            # here, and need not be: the job is given back only if its row is still `running`, and
            # only once the row is free, which it is not before the lost transaction is over.
            lost = connection.invalidated and state.reason is None
            if isinstance(error, ClientNotReady) or sqlstate(error) in _TOO_LONG:
                lost = False  # By what the worker does, and it would do so again.
            if lost or met_another(error):
                state.conflict = error
            raise

    @contextmanager
    def _wished(self) -> Iterator[None]:
        """Go on to the commit if the worker raises JobSnooze or JobCancel with `commit=True`."""
        try:
            yield
        except (JobSnooze, JobCancel) as wish:
            if not wish.commit:
                raise
            self._wish = wish

    def _end(self, session: Session) -> None:
        state = self._state
        state.raise_if_cancelled()
        try:
            if self._wish is None:
                # The UPDATE is not sent together with the COMMIT. Once it is answered, the row is
                # locked: if the connection is then lost, the next attempt waits until the server
                # has committed or not.
                complete(session, state.job, metadata=state.staged or None, schema=self._schema)
                self._wake_waiting(session)
                return
            state.stage_progress()
            state.written = record_wish(
                session,
                state.job,
                self._wish,
                metadata=state.staged,
                schema=self._schema,
                now=state.now(),
            )
            self._wake_waiting(session)
        except DBAPIError as error:
            if sqlstate(error) == _ABORTED:
                error.add_note(_SWALLOWED)
            raise

    def _wake_waiting(self, session: Session) -> None:
        """Make the oldest job that waits for the object available, when this commits."""
        if self._mark is None:
            return
        queue = wake_waiting(session, self._mark, schema=self._schema)
        if queue is not None and self._state.client is not None:
            self._state.client._inserter.announce(session, {queue})


@contextmanager
def _one_commit(connection: Connection) -> Iterator[Callable[[], None]]:
    """Refuse commits of `connection` in the block, until the function that this yields is called.

    They would separate the worker's writes from the completion of its job.
    """
    proxied = refuse_commit(connection, _COMMITS_LATER)
    try:
        yield lambda: allow_commit(proxied)
    finally:
        allow_commit(proxied)


def _complete_and_commit(session: Any, complete: Any) -> None:
    session.complete_and_commit(complete)


def _release(session: Any) -> None:
    session.release()

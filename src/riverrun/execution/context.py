"""JobContext: what a worker can read and do while it works a job."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from riverrun.execution.attempt_state import AttemptState
from riverrun.execution.worker_transaction import WorkerTransaction
from riverrun.jobs.json_values import json_size, json_text
from riverrun.outcome import OUTPUT_KEY, check_output
from riverrun.verbs.complete import merge_metadata

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession


class JobContext(AttemptState):
    """One attempt, as its worker sees it.

    Attributes:
        in_test: Whether `riverrun.testing` works the job, in a test's own thread.
    """

    in_test = False
    _worker_transaction: WorkerTransaction | None = None  # made when first asked for

    @property
    def test_connection(self) -> Connection | None:
        """A test's connection, for plugins that provide sessions to workers; None in production."""
        return None

    def record_output(self, output: object) -> None:
        """Keep `output`, JSON of at most 32 MB, with the job, where River's UI shows it.

        Raises:
            InvalidOption: If JSON cannot hold it, or it is too large.
        """
        self._stage(OUTPUT_KEY, check_output(output), json_size(json_text(output)), None)

    def keep_log(self, key: str, entries: list[object]) -> None:
        """Keep the log of `JobLog`, which limits its size itself.

        Args:
            key: Its key in the job's metadata.
            entries: The entries to keep under the key.

        Raises:
            InvalidOption: If the row has no room for it.
        """
        self._stage(key, entries, json_size(json_text(entries)), None)

    def step(self, name: str, function: Callable[[], object]) -> bool:
        """Run a step, unless an earlier attempt at the job has completed it.

        A failed attempt records which step it completed last. The next attempt skips to the step
        after it. So a worker with steps must do everything in steps, and must not reorder them.

        Args:
            name: The step's name, unique within its worker.
            function: Does the step.

        Returns:
            Whether the step ran.

        Raises:
            InvalidStep: If the name is taken or steps are nested.
        """
        return self.steps.run(name, function)

    def cursor_step(self, name: str, function: Callable[[Any], object]) -> bool:
        """Run a step that can be resumed half-way: `function` gets its last cursor, or None.

        The function calls `set_cursor` as it advances. See `step` for the rest.

        Args:
            name: The step's name, unique within its worker.
            function: Does the step.
        """
        return self.steps.run_from(name, function)

    async def step_async(self, name: str, function: Callable[[], Awaitable[object]]) -> bool:
        """As `step`, in an `async def` worker."""
        return await self.steps.run_async(name, function)

    async def cursor_step_async(
        self, name: str, function: Callable[[Any], Awaitable[object]]
    ) -> bool:
        """As `cursor_step`, in an `async def` worker."""
        return await self.steps.run_from_async(name, function)

    def set_cursor(self, cursor: object) -> None:
        """Record how far the step is, as any JSON, for the next attempt if this one fails.

        Raises:
            InvalidStep: If no step runs, or JSON cannot hold the cursor.
        """
        self.steps.set_cursor(cursor)

    def checkpoint(self, session: Session, *, cursor: object = None) -> None:
        """Record in `session`'s transaction that the step is done, or how far it is.

        The step's writes and this record are then committed together, or neither is. Commit before
        the step returns.

        Args:
            session: A Session or Connection on the client's database.
            cursor: How far the step is. Default: None, which means that it is done.

        Raises:
            AttemptLost: If the job no longer runs at this attempt.
            InvalidStep: As `set_cursor`.
        """
        progress = self.steps.checkpoint(cursor)
        merge_metadata(session, self.job, progress, schema=self._parts.schema)

    @contextmanager
    def transaction(self, **session_options: Any) -> Iterator[Session]:
        """Yield a Session that commits the worker's writes and the job's completion together.

        After the block the job is completed. An error that the worker raises later is only logged.
        If the block raises, or the job was rescued or deleted meanwhile, nothing is committed. A
        commit within the block is refused.

        If the transaction failed only because of another transaction, or because its connection was
        lost, the attempt does not count: the job is soon claimed again. This concerns SQLSTATE
        40001, 40P01 and 55P03, and SQLAlchemy's StaleDataError. After 20 of these the attempt fails
        as with any other error.

        Args:
            **session_options: Passed to the Session.

        Raises:
            AttemptLost: If the job no longer runs at this attempt.
            ClientNotReady: If a transaction of this attempt is open or committed already.
            NoConnection: If the engine's pool had no free connection in the attempt's time. The
                attempt does not count then.
        """
        with self.worker_transaction.block(**session_options) as session:
            yield session

    @asynccontextmanager
    async def async_transaction(
        self, engine: "AsyncEngine", **session_options: Any
    ) -> AsyncIterator["AsyncSession"]:
        """Yield an AsyncSession on `engine`; as `transaction`, for an `async def` worker.

        Args:
            engine: An AsyncEngine on the client's database, made for the client's event loop.
            **session_options: Passed to the AsyncSession.
        """
        async with self.worker_transaction.block_async(engine, **session_options) as session:
            yield session

    @property
    def worker_transaction(self) -> WorkerTransaction:
        """The attempt's transaction whose commit completes the job."""
        if self._worker_transaction is None:
            self._worker_transaction = self._make_transaction()
        return self._worker_transaction

    def _make_transaction(self) -> WorkerTransaction:
        parts = self._parts
        return WorkerTransaction(
            self, engine=parts.engine, schema=parts.schema, makers=parts.makers
        )

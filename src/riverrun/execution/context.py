"""JobContext: what a worker can read and do while it works a job."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from riverrun.clock import Clock
from riverrun.errors import (
    AttemptInterrupted,
    InvalidOption,
    InvalidStep,
    JobTimedOut,
)
from riverrun.execution.steps import Steps, may_resume
from riverrun.execution.worker_session import SessionMakers
from riverrun.execution.worker_transaction import WorkerTransaction
from riverrun.jobs.json_values import MAX_METADATA_BYTES, json_size, json_text, metadata_text
from riverrun.jobs.row import JobRow
from riverrun.outcome import MAX_ROW_BYTES, OUTPUT_KEY, Outcome, check_output
from riverrun.verbs.claim import ClaimedJob
from riverrun.verbs.complete import merge_metadata

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession


@attrs.frozen(kw_only=True)
class ContextParts:
    """What the contexts of a client's attempts have in common.

    Attributes:
        clock: The process's clock.
        engine: The engine from which `ctx.transaction()` takes connections; None if it must not.
        schema: The schema of River's tables.
        client: The client that works the jobs; None outside a client.
        makers: Makes the sessions that workers take.
    """

    clock: Clock
    engine: Engine | None
    schema: str | None = None
    client: Any = None
    makers: SessionMakers = attrs.field(factory=SessionMakers)


class JobContext:
    """One attempt, as its worker sees it.

    Attributes:
        is_bare: Whether the job's metadata is known to be empty.
        in_test: Whether `riverrun.testing` works the job, in a test's own thread.
    """

    in_test = False

    # One context is made for each job, and most of these keep their values in it.
    _deadline: float | None = None
    _event: threading.Event | None = None  # made when a worker first waits
    _on_cancel: Callable[[], object] | None = None
    _reason: AttemptInterrupted | None = None
    _staged: Mapping[str, Any] = MappingProxyType({})  # replaced, never changed
    # By key: the staged value's size, and whether it counts toward the shared limit.
    _sizes: Mapping[str, tuple[int, bool]] = MappingProxyType({})
    _worker_transaction: WorkerTransaction | None = None  # made when first asked for
    completed = False  # by the worker's own transaction
    written: Outcome | None = None  # what that has written, if not a completion
    conflict: BaseException | None = None  # the error after which it can begin again
    _steps: Steps | None = None

    def __init__(
        self,
        job: JobRow | ClaimedJob,
        parts: ContextParts,
        claimed_monotonic: float,
        timeout_s: float | None,
    ) -> None:
        self._job = job
        # Whether it is known, without decoding it, that the job's metadata is empty.
        self.is_bare = type(job) is ClaimedJob and job.is_bare
        self._parts = parts
        self._clock = parts.clock
        self._claimed_monotonic = claimed_monotonic
        self._timeout_s = timeout_s

    @property
    def client(self) -> Any:
        """The client that works the job, for inserting more; None outside a client."""
        return self._parts.client

    @property
    def job(self) -> JobRow:
        """The job as it was claimed."""
        if isinstance(self._job, ClaimedJob):
            self._job = self._job.row()
        return self._job

    @property
    def test_connection(self) -> Connection | None:
        """A test's connection, for plugins that provide sessions to workers; None in production."""
        return None

    @property
    def timeout_s(self) -> float | None:
        """Seconds that the attempt may take; None for no limit."""
        return self._timeout_s

    def begin(self, *, in_s: float = 0.0) -> None:
        """Start the attempt's time, `in_s` seconds from now; called when the worker begins."""
        if self._timeout_s is not None:
            self._deadline = self._clock.monotonic() + in_s + self._timeout_s

    def cancel(self, reason: AttemptInterrupted) -> None:
        """Ask the worker to stop, for `reason`. The first reason stays."""
        if self._reason is None:
            self._reason = reason
        if self._event is not None:
            self._event.set()
        # Only once: a second reason must not interrupt the worker's clean-up after the first.
        call, self._on_cancel = self._on_cancel, None
        if call is not None:
            call()

    def on_cancel(self, call: Callable[[], object] | None) -> None:
        """Call `call` once, from any thread, when the attempt is cancelled; now, if it has been."""
        self._on_cancel = call
        if self._reason is not None:
            self.cancel(self._reason)

    def adopt(self, staged: Mapping[str, Any], steps: Steps) -> None:
        """Take over what another process has `staged` for this attempt, and its `steps`."""
        self._staged = {**self._staged, **staged}
        self._steps = steps

    @property
    def steps(self) -> Steps:
        """The attempt's steps."""
        if self._steps is None:
            self._steps = Steps(self._job.metadata)
        return self._steps

    @property
    def reason(self) -> AttemptInterrupted | None:
        """Why the worker should stop now; None while it may go on."""
        late = self._deadline is not None and self._clock.monotonic() >= self._deadline
        if self._reason is None and late:
            assert self._timeout_s is not None  # noqa: S101  set together with the deadline
            self._reason = JobTimedOut(self._timeout_s)
        return self._reason

    def check_steps(self) -> None:
        """Refuse the steps that an earlier attempt left if they cannot be resumed.

        Raises:
            InvalidStep: If their cursors are not a JSON object.
        """
        if not self.is_bare and may_resume(self._job.metadata):
            self.steps  # noqa: B018  the first access makes and checks them

    def missed_step(self) -> InvalidStep | None:
        """Return an error if the worker returned without a step that it should have resumed."""
        if self._steps is None and (self.is_bare or not may_resume(self._job.metadata)):
            return None
        return self.steps.unreached()

    @property
    def cancelled(self) -> bool:
        """Whether the worker should stop now: timed out, cancelled, or the client stops."""
        return self.reason is not None

    def raise_if_cancelled(self) -> None:
        """Raise the reason why the worker should stop now, if there is one.

        Raises:
            AttemptInterrupted: JobTimedOut, JobCancelledRemotely or ClientStopping.
        """
        reason = self.reason
        if reason is not None:
            raise reason

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds or until the worker should stop; return whether it should."""
        if self._deadline is not None:
            timeout = min(timeout, max(0.0, self._deadline - self._clock.monotonic()))
        if self._event is None:
            self._event = threading.Event()
        if self._reason is None:
            self._event.wait(timeout)
        return self.cancelled

    def now(self) -> datetime:
        """Return the database's time: the time of the claim, plus what has passed since."""
        passed_s = self._clock.monotonic() - self._claimed_monotonic
        start = self.job.attempted_at or self._clock.now()
        return start + timedelta(seconds=passed_s)

    @property
    def staged(self) -> Mapping[str, Any]:
        """The metadata that will be merged into the job's, whatever the outcome."""
        return self._staged

    def stage_progress(self) -> None:
        """Keep the completed steps. It is called when the attempt did not succeed."""
        if self._steps is None:
            with suppress(InvalidStep):
                self.check_steps()
        if self._steps is not None:
            self._staged = {**self._staged, **self._steps.progress()}

    def set_metadata(self, key: str, value: object) -> None:
        """Merge `key` into the job's metadata when the attempt ends, whatever its outcome.

        Args:
            key: The name.
            value: Any JSON; it replaces the key's value. All values that an attempt sets may have
                32 MiB together, not counting its output.

        Raises:
            InvalidOption: If JSON cannot hold it, or it is too large.
        """
        self._stage(key, value, json_size(metadata_text({key: value})), MAX_METADATA_BYTES)

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

    def _stage(self, key: str, value: object, size: int, most: int | None) -> None:
        """Stage `value` of `size` bytes; with `most`, it counts toward that shared limit."""
        shared = size + sum(
            each for name, (each, is_shared) in self._sizes.items() if is_shared and name != key
        )
        if most is not None and shared > most:
            limit = f"at most {most:,} bytes of JSON in one attempt; keep a reference to it"
            raise InvalidOption("metadata", f"{shared:,} bytes", limit)
        staged = size + sum(each for name, (each, _) in self._sizes.items() if name != key)
        if staged + self._row_bytes() > MAX_ROW_BYTES:
            kept = {name: each for name, each in self._job.metadata.items() if name != key}
            kept = {name: each for name, each in kept.items() if name not in self._staged}
            if (total := staged + json_size(json_text(kept))) > MAX_ROW_BYTES:
                limit = f"at most {MAX_ROW_BYTES:,} bytes of JSON, with what the job has already"
                raise InvalidOption("metadata", f"{total:,} bytes", limit)
        self._sizes = {**self._sizes, key: (size, most is not None)}
        self._staged = {**self._staged, key: value}

    def _row_bytes(self) -> int:
        if isinstance(self._job, ClaimedJob):
            return self._job.metadata_bytes
        return json_size(json_text(self._job.metadata))

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

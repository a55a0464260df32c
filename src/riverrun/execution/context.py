"""What a worker may ask while it works."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

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


_PLAIN = SessionMakers()


class JobContext:
    """One attempt, as its worker sees it.

    Attributes:
        client: The client that works it, to insert more jobs with; None outside of one.
        in_test: Whether `riverrun.testing` works it, in a test's own thread.
    """

    in_test = False

    def __init__(
        self,
        job: JobRow | ClaimedJob,
        *,
        clock: Clock,
        claimed_monotonic: float,
        timeout_s: float | None,
        engine: Engine | None,
        schema: str | None = None,
        client: Any = None,
        makers: SessionMakers = _PLAIN,
    ) -> None:
        self._job = job
        self.client = client
        self._clock = clock
        self._claimed_monotonic = claimed_monotonic
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._engine = engine
        self._schema = schema
        self._makers = makers
        self._event: threading.Event | None = None  # made when a worker first waits
        self._on_cancel: Callable[[], object] | None = None
        self._reason: AttemptInterrupted | None = None
        self._staged: dict[str, Any] = {}
        self._sizes: dict[str, tuple[int, bool]] = {}  # of what is staged, and whether it shares
        self._worker_transaction: WorkerTransaction | None = None  # made when first asked for
        self.completed = False  # by the worker's own transaction
        self.written: Outcome | None = None  # what that has written, if it is no completion
        self.conflict: BaseException | None = None  # by what it was rolled back and can begin again
        self._steps: Steps | None = None

    @property
    def job(self) -> JobRow:
        """The job as it was claimed."""
        if isinstance(self._job, ClaimedJob):
            self._job = self._job.row()
        return self._job

    @property
    def test_connection(self) -> Connection | None:
        """A test's connection, for plugins that give workers a session; None in production."""
        return None

    @property
    def timeout_s(self) -> float | None:
        """Seconds that the attempt may take; None for no limit."""
        return self._timeout_s

    def begin(self, *, in_s: float = 0.0) -> None:
        """Start the attempt's time, `in_s` seconds from now; called when its worker begins."""
        if self._timeout_s is not None:
            self._deadline = self._clock.monotonic() + in_s + self._timeout_s

    def cancel(self, reason: AttemptInterrupted) -> None:
        """Tell the worker to end; the first reason stays."""
        if self._reason is None:
            self._reason = reason
        if self._event is not None:
            self._event.set()
        # Once: a second reason must not cut short what the first has the worker clean up.
        call, self._on_cancel = self._on_cancel, None
        if call is not None:
            call()

    def on_cancel(self, call: Callable[[], object] | None) -> None:
        """Have `call` called once, from any thread, when somebody cancels; now, if they have."""
        self._on_cancel = call
        if self._reason is not None:
            self.cancel(self._reason)

    def adopt(self, staged: Mapping[str, Any], steps: Steps) -> None:
        """Take over what another process staged for this attempt, and its steps."""
        self._staged.update(staged)
        self._steps = steps

    @property
    def steps(self) -> Steps:
        """The attempt's steps."""
        if self._steps is None:
            self._steps = Steps(self._job.metadata)
        return self._steps

    @property
    def reason(self) -> AttemptInterrupted | None:
        """Why the worker shall end now; None while it may go on."""
        late = self._deadline is not None and self._clock.monotonic() >= self._deadline
        if self._reason is None and late:
            assert self._timeout_s is not None  # noqa: S101  set together with the deadline
            self._reason = JobTimedOut(self._timeout_s)
        return self._reason

    def check_steps(self) -> None:
        """Refuse what an earlier attempt left of its steps if it cannot be taken up.

        Raises:
            InvalidStep: If it holds cursors that are no object.
        """
        if may_resume(self._job.metadata):
            self.steps  # noqa: B018  made once, and checked then

    def missed_step(self) -> InvalidStep | None:
        """Return an error if the worker returned without a step that it was to take up again."""
        if self._steps is None and not may_resume(self._job.metadata):
            return None
        return self.steps.unreached()

    @property
    def cancelled(self) -> bool:
        """Whether the worker shall end now: timed out, cancelled, or the client stops."""
        return self.reason is not None

    def raise_if_cancelled(self) -> None:
        """Raise the reason why the worker shall end now, if there is one.

        Raises:
            AttemptInterrupted: JobTimedOut, JobCancelledRemotely or ClientStopping.
        """
        if self.reason is not None:
            raise self.reason

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds, or until the worker shall end; return whether it shall."""
        if self._deadline is not None:
            timeout = min(timeout, max(0.0, self._deadline - self._clock.monotonic()))
        if self._event is None:
            self._event = threading.Event()
        if self._reason is None:
            self._event.wait(timeout)
        return self.cancelled

    def now(self) -> datetime:
        """Return the database's time: that of the claim, and what has passed since."""
        passed_s = self._clock.monotonic() - self._claimed_monotonic
        start = self.job.attempted_at or self._clock.now()
        return start + timedelta(seconds=passed_s)

    @property
    def staged(self) -> Mapping[str, Any]:
        """What will be merged into the job's metadata, whatever the outcome."""
        return self._staged

    def stage_progress(self) -> None:
        """Keep the steps that were completed; called when the attempt did not succeed."""
        if self._steps is None:
            with suppress(InvalidStep):
                self.check_steps()
        if self._steps is not None:
            self._staged.update(self._steps.progress())

    def set_metadata(self, key: str, value: object) -> None:
        """Merge `key` into the job's metadata when the attempt ends, whatever its outcome.

        Args:
            key: The name.
            value: Any JSON, in place of what the key had. All that an attempt sets may have 32 MiB,
                beside its output.

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
        """Keep what `JobLog` has bounded itself.

        Args:
            key: Its key in the job's metadata.
            entries: What is kept under it.

        Raises:
            InvalidOption: If the row has no room for it.
        """
        self._stage(key, entries, json_size(json_text(entries)), None)

    def _stage(self, key: str, value: object, size: int, most: int | None) -> None:
        """Stage `value` of `size` bytes; with `most`, one of those that share so many."""
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
        self._sizes[key] = (size, most is not None)
        self._staged[key] = value

    def _row_bytes(self) -> int:
        if isinstance(self._job, ClaimedJob):
            return self._job.metadata_bytes
        return json_size(json_text(self._job.metadata))

    def step(self, name: str, function: Callable[[], object]) -> bool:
        """Run a step, unless an earlier attempt at the job has completed it.

        A failed attempt keeps which step it completed last; the next one skips to the step after.
        All that a worker does belongs into steps then, and their order must stay.

        Args:
            name: Names the step within its worker.
            function: Does it.

        Returns:
            Whether it ran.

        Raises:
            InvalidStep: If the name is taken or steps are nested.
        """
        return self.steps.run(name, function)

    def cursor_step(self, name: str, function: Callable[[Any], object]) -> bool:
        """Run a step that can be taken up half-way: `function` gets its last cursor, or None.

        The function calls `set_cursor` as it advances. As `step` otherwise.
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
        """Keep how far the step is, any JSON, for the next attempt if this one fails.

        Raises:
            InvalidStep: If no step runs, or JSON cannot hold the cursor.
        """
        self.steps.set_cursor(cursor)

    def checkpoint(self, session: Session, *, cursor: object = None) -> None:
        """Keep in `session`'s transaction that the step is done, or how far it is.

        What the step wrote and that it did so are then committed together, or neither. Commit
        before the step returns.

        Args:
            session: A Session or Connection on the client's database.
            cursor: How far the step is; done if None.

        Raises:
            AttemptLost: If the job no longer runs at this attempt.
            InvalidStep: As `set_cursor`.
        """
        said = self.steps.checkpoint(cursor)
        merge_metadata(session, self.job, said, schema=self._schema)

    @contextmanager
    def transaction(self, **session_options: Any) -> Iterator[Session]:
        """Yield a Session that commits the worker's writes and the job's completion together.

        After the block the job is completed; what the worker then raises is only logged. If the
        block raises, or the job was rescued or deleted meanwhile, nothing of it is committed.

        An attempt whose transaction failed only because another one was in its way, or because its
        connection was lost, does not count: the job is soon claimed again. That is SQLSTATE 40001,
        40P01 or 55P03, and SQLAlchemy's StaleDataError. After 20 of these it fails as by any other
        error.

        Args:
            **session_options: Passed to the Session.

        Raises:
            AttemptLost: If the job no longer runs at this attempt.
            ClientNotReady: If a transaction of this attempt is open or committed already.
            NoConnection: If the engine's pool had no connection free in the attempt's time; the
                attempt does not count then.
        """
        with self.worker_transaction.block(**session_options) as session:
            yield session

    @asynccontextmanager
    async def async_transaction(
        self, engine: "AsyncEngine", **session_options: Any
    ) -> AsyncIterator["AsyncSession"]:
        """As `transaction`, for an `async def` worker: yield an AsyncSession on `engine`.

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
        return WorkerTransaction(
            self, engine=self._engine, schema=self._schema, makers=self._makers
        )

"""AttemptState: an attempt's job, time, cancellation and staged metadata.

It is the part of the JobContext that the attempt's transaction reads and writes, too.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import attrs
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.errors import AttemptInterrupted, InvalidOption, InvalidStep, JobTimedOut
from riverrun.execution.steps import Steps, may_resume
from riverrun.execution.worker_session import SessionMakers
from riverrun.jobs.json_values import MAX_METADATA_BYTES, json_size, json_text, metadata_text
from riverrun.jobs.row import JobRow
from riverrun.outcome import MAX_ROW_BYTES, Outcome
from riverrun.verbs.claim import ClaimedJob


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


class AttemptState:
    """What is known of one attempt while it runs.

    Args:
        job: The job as it was claimed.
        parts: What it has in common with the client's other attempts.
        claimed_monotonic: When it was claimed, by the clock's `monotonic()`.
        timeout_s: Seconds that the attempt may take; None for no limit.

    Attributes:
        is_bare: Whether the job's metadata is known to be empty.
    """

    # One context is made for each job, and most of these keep their values in it.
    _deadline: float | None = None
    _event: threading.Event | None = None  # made when a worker first waits
    _on_cancel: Callable[[], object] | None = None
    _reason: AttemptInterrupted | None = None
    _staged: Mapping[str, Any] = MappingProxyType({})  # replaced, never changed
    # By key: the staged value's size, and whether it counts toward the shared limit.
    _sizes: Mapping[str, tuple[int, bool]] = MappingProxyType({})
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

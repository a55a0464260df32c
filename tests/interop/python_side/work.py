"""Methods that work jobs: one client at a time, its workers, and a record of their actions."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import attrs

from riverrun import (
    Client,
    Constant,
    ErrorHandlerResult,
    Event,
    InsertOpts,
    Interval,
    JobCancel,
    JobCancelled,
    JobCompleted,
    JobContext,
    JobDraft,
    JobError,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobRow,
    JobsClaimed,
    JobSnooze,
    JobSnoozed,
    JobState,
    PeriodicJob,
    Plugin,
    QueueConfig,
    QueuePaused,
    QueueResumed,
    UniqueOpts,
    Workers,
)
from riverrun.execution.thread_interrupt import Interruption
from riverrun.migrations import Line, migrate

from .protocol import INVALID_PARAMS, NOT_FOUND, REJECTED, UNSUPPORTED, Empty, Failure, method
from .shapes import Echo, shown_job
from .state import ANSWER_S, State

R = TypeVar("R")

FOREVER_S = 3600.0
LOOK_S = 0.01
FINAL = [JobState.cancelled, JobState.completed, JobState.discarded]
EVENTS: dict[type[Event], str] = {
    JobCancelled: "job_cancelled",
    JobCompleted: "job_completed",
    JobFailed: "job_failed",
    JobInterrupted: "job_interrupted",
    JobSnoozed: "job_snoozed",
    QueuePaused: "queue_paused",
    QueueResumed: "queue_resumed",
}


@attrs.frozen(kw_only=True)
class Start:
    client_id: str
    cancelled_job_retention_ms: int | None = None
    claim_barrier: str = ""
    completed_job_retention_ms: int | None = None
    discarded_job_retention_ms: int | None = None
    elect_interval_ms: int | None = None
    error_handler_cancel: bool = False
    fetch_poll_interval_ms: int = 1000
    instrumented: bool = False
    job_cleaner_interval_ms: int | None = None
    job_stuck_threshold_ms: int | None = None
    job_timeout_disabled: bool = False
    job_timeout_ms: int | None = None
    leader_election_disabled: bool = False
    max_workers: int = 4
    periodic_run_on_start: bool = False
    periodic_unique: bool = False
    poll_only: bool = False
    queue: str = "default"
    queue_cleaner_interval_ms: int | None = None
    reindexer_index_names: list[str] | None = None
    reindexer_interval_ms: int | None = None
    rescue_after_ms: int | None = None
    rescuer_interval_ms: int | None = None
    retry_delay_ms: int | None = None
    scheduler_interval_ms: int | None = None
    schema: str = ""


@attrs.frozen(kw_only=True)
class Stop:
    cancel: bool = False


@attrs.frozen(kw_only=True)
class Wait:
    id: int
    states: list[JobState] = attrs.Factory(lambda: list(FINAL))


@attrs.frozen(kw_only=True)
class Work:
    id: int
    client_id: str = "riverrun-work"
    schema: str = ""


@attrs.frozen(kw_only=True)
class Name:
    name: str


@method
def start(state: State, params: Start) -> Any:
    if state.running is not None:
        raise Failure(REJECTED, "a client is running already")
    tuning = (params.elect_interval_ms, params.rescuer_interval_ms, params.scheduler_interval_ms)
    if any(each is not None for each in tuning):
        problem = "the intervals of election, rescuer and scheduler are constants of riverrun"
        raise Failure(UNSUPPORTED, problem)
    if params.claim_barrier and params.claim_barrier not in state.barriers:
        raise Failure(INVALID_PARAMS, f"no barrier {params.claim_barrier!r}")
    if params.periodic_unique and not params.periodic_run_on_start:
        raise Failure(INVALID_PARAMS, "periodic_unique needs periodic_run_on_start")
    running = Running(state, params)
    running.client.start()
    state.running = running


@method
def stop(state: State, params: Stop) -> Any:
    if state.running is None:
        raise Failure(REJECTED, "no client is running")
    running, state.running = state.running, None
    running.stop(cancel=params.cancel)


@method
def wait(state: State, params: Wait) -> Any:
    end = time.monotonic() + ANSWER_S
    schema = state.running.client.schema if state.running is not None else None
    client = state.client(schema or "")
    while True:
        job = client.get(state.engine, params.id)
        if job.state in params.states:
            return shown_job(job)
        if time.monotonic() > end:
            wanted = " or ".join(params.states)
            raise Failure(REJECTED, f"job {job.id} is {job.state}, not {wanted}")
        time.sleep(LOOK_S)


@method
def work(state: State, params: Work) -> Any:
    if state.running is not None:
        raise Failure(REJECTED, "a client is running already")
    queue = state.client(params.schema).get(state.engine, params.id).queue
    how = Start(client_id=params.client_id, max_workers=1, queue=queue, schema=params.schema)
    running = Running(state, how)
    with running.client.subscribe(JobEvent) as ended:
        running.client.start()
        try:
            while ended.get(ANSWER_S).job.id != params.id:
                pass
        except TimeoutError:
            raise Failure(REJECTED, f"job {params.id} was not worked") from None
        finally:
            running.stop(cancel=False)
    return shown_job(running.client.get(state.engine, params.id))


@method
def runtime_stats(state: State, params: Empty) -> Any:
    if state.running is None:
        raise Failure(REJECTED, "no client is running")
    return state.running.seen.shown()


@method
def barrier_create(state: State, params: Name) -> Any:
    state.barriers[params.name] = threading.Event()


@method
def barrier_release(state: State, params: Name) -> Any:
    if params.name not in state.barriers:
        raise Failure(NOT_FOUND, f"no barrier {params.name!r}")
    state.barriers[params.name].set()


class Seen:
    """A record of what a client did since it was started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(
            (
                "cancelled_at_start",
                "error_handler_calls",
                "periodic_starts",
                "resumable_first_runs",
                "resumable_second_runs",
                "stuck_jobs",
            ),
            0,
        )
        self._events: list[str] = []
        self._trace: list[str] = []

    def count(self, name: str) -> None:
        """Increase a counter by one."""
        with self._lock:
            self._counts[name] += 1

    def event(self, event: Event) -> None:
        """Record an event."""
        with self._lock:
            self._events.append(EVENTS[type(event)])

    def note(self, what: str) -> None:
        """Record a step of a plugin."""
        with self._lock:
            self._trace.append(what)

    def shown(self) -> dict[str, Any]:
        """Return the whole record."""
        with self._lock:
            return {**self._counts, "events": list(self._events), "trace": list(self._trace)}


class Watching(Plugin):
    """Records plugin calls, if asked to, and attempts that are cancelled when they begin."""

    def __init__(self, seen: Seen, *, instrumented: bool) -> None:
        self._seen = seen
        self._note = seen.note if instrumented else lambda _: None

    def insert_many(self, drafts: Sequence[JobDraft], call_next: Callable[[], R]) -> R:
        self._note("middleware:insert_before")
        try:
            return call_next()
        finally:
            self._note("middleware:insert_after")

    def insert_begin(self, draft: JobDraft) -> JobDraft:
        self._note("hook:insert_begin")
        return draft

    def periodic_jobs_start(self) -> None:
        self._seen.count("periodic_starts")
        self._note("hook:periodic_start")

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        # riverrun does not call the worker of an attempt that is already cancelled.
        if ctx.cancelled and ctx.job.args.get("behavior") == "cooperative_cancel":
            self._seen.count("cancelled_at_start")
        self._note("middleware:work_before")
        try:
            call_next()
        finally:
            self._note("middleware:work_after")

    def work_begin(self, ctx: JobContext) -> None:
        self._note("hook:work_begin")

    def work_end(self, ctx: JobContext, error: BaseException | None) -> BaseException | None:
        self._note("hook:work_end")
        return error


class Running:
    """The single client that works, and the record of what it did."""

    def __init__(self, state: State, params: Start) -> None:
        self.seen = Seen()
        self._state = state
        self._params = params
        # Who migrates River's tables with Go runs `riverrun migrate up` once for riverrun's own.
        migrate(state.engine, line=Line.riverrun, schema=params.schema or None)
        workers = Workers()
        workers.register(self._work, interrupt=True)
        self.client = Client(state.engine, workers=workers, **self._options())
        self.client.listen(self.seen.event, *EVENTS)
        if params.claim_barrier:
            self._held = False
            self.client.listen(self._hold, JobsClaimed)

    def stop(self, *, cancel: bool) -> None:
        """Stop the client and release what it holds."""
        if self._params.claim_barrier:
            self._state.barriers[self._params.claim_barrier].set()
        self.client.stop(cancel=cancel)

    def _options(self) -> dict[str, Any]:
        params = self._params
        options: dict[str, Any] = {
            "id": params.client_id,
            "queues": {params.queue: QueueConfig(max_workers=params.max_workers)},
            "schema": params.schema or None,
            "poll_only": params.poll_only,
            "poll_interval": max(params.fetch_poll_interval_ms / 1000, 0.01),
            "soft_stop_timeout": ANSWER_S,
            "leader_election_disabled": params.leader_election_disabled,
            "plugins": [Watching(self.seen, instrumented=params.instrumented)],
            "periodic_jobs": self._periodic_jobs(),
            "job_stuck_handler": self._stuck,
            "skip_unknown_job_check": True,
        }
        if params.job_timeout_disabled:
            options["job_timeout"] = 0
        if params.error_handler_cancel:
            options["error_handler"] = self._cancel_failed
        if params.retry_delay_ms is not None:
            options["backoff"] = Constant(delay=params.retry_delay_ms / 1000, jitter=0)
        if params.reindexer_index_names is not None:
            options["reindexer_index_names"] = params.reindexer_index_names
        if params.reindexer_interval_ms is not None:
            options["reindexer_schedule"] = Interval(params.reindexer_interval_ms / 1000)
        for name, given in (
            ("job_timeout", params.job_timeout_ms),
            ("job_stuck_threshold", params.job_stuck_threshold_ms),
            ("rescue_after", params.rescue_after_ms),
            ("cancelled_retention", params.cancelled_job_retention_ms),
            ("completed_retention", params.completed_job_retention_ms),
            ("discarded_retention", params.discarded_job_retention_ms),
        ):
            if given is not None:
                options[name] = None if given < 0 else timedelta(milliseconds=given)
        return options

    def _periodic_jobs(self) -> list[PeriodicJob]:
        if not self._params.periodic_run_on_start:
            return []
        unique = UniqueOpts(by_args=True, by_queue=True) if self._params.periodic_unique else None
        jobs = [_periodic("conformance-periodic", "periodic run on start", unique)]
        if self._params.periodic_unique:
            jobs.append(_periodic("conformance-periodic-marker", "periodic marker", None))
        return jobs

    def _hold(self, _: Event) -> None:
        if not self._held:
            self._held = True
            self._state.barriers[self._params.claim_barrier].wait()

    def _cancel_failed(self, job: JobRow, error: BaseException) -> ErrorHandlerResult:
        self.seen.count("error_handler_calls")
        return ErrorHandlerResult(set_cancelled=True)

    def _stuck(self, job: JobRow) -> None:
        self.seen.count("stuck_jobs")

    def _work(self, args: Echo, ctx: JobContext) -> None:
        match args.behavior:
            case "":
                pass
            case "barrier_output" | "barrier_wait":
                self._wait_at(args.message, ctx)
                if args.behavior == "barrier_output":
                    ctx.record_output({"race": "worker"})
            case "cancel":
                raise JobCancel("cancelled by conformance worker")
            case "cancel_error":
                ctx.wait(FOREVER_S)
                raise JobError("conformance failure after cancellation")
            case "cancel_panic":
                ctx.wait(FOREVER_S)
                raise RuntimeError("conformance panic after cancellation")
            case "cooperative_cancel":
                ctx.wait(FOREVER_S)
                ctx.raise_if_cancelled()
            case "discard":
                raise JobError("conformance discard")
            case "error":
                raise JobError("conformance retryable error")
            case "ignored_cancel":
                self._ignore()
            case "output":
                ctx.record_output({"message": args.message})
            case "panic":
                raise RuntimeError("conformance worker panic")
            case "resumable" | "resumable_duplicate":
                self._resume(ctx, "second" if args.behavior == "resumable" else "first")
            case "resumable_cursor":
                _resume_at_cursor(ctx)
            case "sleep":
                ctx.wait(args.duration_ms / 1000)
                ctx.raise_if_cancelled()
            case "snooze_once" | "snooze_then_cancel":
                if "snoozes" not in ctx.job.metadata:
                    raise JobSnooze(max(args.duration_ms, 1) / 1000)
                if args.behavior == "snooze_then_cancel":
                    ctx.wait(FOREVER_S)
                    ctx.raise_if_cancelled()
            case "transactional_complete":
                ctx.set_metadata("transactional_completion", True)
                with ctx.transaction():
                    pass
            case unknown:
                raise JobError(f"unknown behavior {unknown!r}")

    def _wait_at(self, name: str, ctx: JobContext) -> None:
        barrier = self._state.barriers.get(name)
        if barrier is None:
            raise JobError(f"no barrier {name!r}")
        while not barrier.wait(LOOK_S):
            ctx.raise_if_cancelled()

    def _ignore(self) -> None:
        while True:
            try:
                time.sleep(LOOK_S)
            except Interruption:
                # If the scenario requires a stuck job, not even an interruption ends it.
                if self._params.job_stuck_threshold_ms is None:
                    raise

    def _resume(self, ctx: JobContext, second: str) -> None:
        ctx.step("first", lambda: self.seen.count("resumable_first_runs"))

        def fail_once() -> None:
            self.seen.count("resumable_second_runs")
            if ctx.job.attempt == 1:
                raise JobError("second step fails once")

        ctx.step(second, fail_once)


def _resume_at_cursor(ctx: JobContext) -> None:
    attempt = ctx.job.attempt
    ctx.step("first", lambda: ctx.set_metadata("first_attempt", attempt))

    def second(cursor: Any) -> None:
        if attempt == 1:
            ctx.set_cursor(7)
            raise JobError("second step fails once")
        if cursor != 7:
            raise JobError(f"cursor is {cursor!r}, not 7")
        ctx.set_metadata("cursor_observed", cursor)

    def third() -> None:
        if attempt == 2:
            raise JobError("third step fails once")

    ctx.cursor_step("second", second)
    ctx.step("third", third)


def _periodic(job_id: str, message: str, unique: UniqueOpts | None) -> PeriodicJob:
    opts = InsertOpts(metadata={"periodic": True}, unique=unique)
    return PeriodicJob(
        Interval(FOREVER_S), lambda: (Echo(message=message), opts), id=job_id, run_on_start=True
    )

"""The life of a job from end to end, and every way in which an attempt or a client can end."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, func, make_url, select, text, update
from sqlalchemy.orm import Session

from factories import insert_job
from riverrun import (
    Client,
    Constant,
    InsertOpts,
    JobCancel,
    JobContext,
    JobSnooze,
    JobState,
    QueueConfig,
    RawArgs,
    Workers,
)
from riverrun.errors import (
    AttemptLost,
    ClientNotReady,
    InvalidOption,
    NotATransaction,
    SchemaMissing,
    StopTimeout,
    UnknownKind,
    WrongDatabase,
)
from riverrun.events import (
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobsClaimed,
    JobSnoozed,
)
from riverrun.jobs.row import JobRow
from riverrun.models import Job
from runtime.task import Task
from waiting import DEADLINE_S, until

Came = Callable[[threading.Event, str], None]


class Gate:
    """A worker that signals when it begins and waits until it is released or cancelled."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.began = threading.Event()
        self.open = threading.Event()
        self.calls: Counter[int] = Counter()
        self._deaf = deaf

    def __call__(self, args: Any, ctx: JobContext) -> None:
        """Work: wait until the gate is open or the context is cancelled."""
        self.calls[ctx.job.id] += 1
        self.began.set()
        if self._deaf:
            assert self.open.wait(DEADLINE_S), "the gate was never opened"
            return
        while not self.open.is_set() and not ctx.wait(0.01):
            pass
        ctx.raise_if_cancelled()

    def wait_began(self) -> None:
        """Wait until a worker has begun."""
        assert self.began.wait(DEADLINE_S), "no worker began"


def rows(app: Any, *columns: Any) -> list[Any]:
    """Return `columns` of every job, by id."""
    with app.engine.connect() as connection:
        options = {"schema_translate_map": {None: app.schema}}
        return list(
            connection.execute(select(*columns).order_by(Job.id), execution_options=options)
        )


def states(app: Any) -> Counter[JobState]:
    """Return the number of jobs in each state."""
    return Counter(JobState(row.state) for row in rows(app, Job.state))


def change(app: Any, statement: Any) -> None:
    """Execute `statement` in its own transaction."""
    options = {"schema_translate_map": {None: app.schema}}
    with app.engine.begin() as connection:
        connection.execute(statement, execution_options=options)


def work_one(app: Any, body: Any, opts: InsertOpts | None = None, **options: Any) -> JobEvent:
    """Work one job with `body` and return its first event."""
    client, events = app.run(body, **options)
    client.insert(app.engine, Task(), opts)
    event = events.get(DEADLINE_S)
    client.stop()
    return event  # type: ignore[return-value]


def raising(error: BaseException) -> Callable[[Task, JobContext], None]:
    """Return a worker that raises `error`."""

    def body(args: Task, ctx: JobContext) -> None:
        raise error

    return body


# --- the walk


def test_walks_a_job_from_insert_to_completion(app: Any) -> None:
    """A job inserted in a Session runs after its commit, with its args, and is completed."""
    seen: list[Any] = []
    client, events = app.run(
        lambda args, ctx: seen.append((args.number, ctx.job.attempt, ctx.client))
    )
    with Session(app.engine) as session, session.begin():
        job = client.insert(session, Task(number=7)).job
    event = events.get(DEADLINE_S)
    assert isinstance(event, JobCompleted)
    assert (event.job.id, event.job.state) == (job.id, JobState.completed)
    assert event.run_s >= 0
    assert event.queue_wait_s >= 0
    assert event.complete_s >= 0
    assert seen == [(7, 1, client)]
    row = client.get(app.engine, job.id)
    assert (row.state, row.errors, row.attempted_by) == (JobState.completed, (), (client.id,))
    assert row.finalized_at is not None


def test_rolled_back_jobs_never_run(app: Any) -> None:
    """A job that is rolled back is not worked; a job that is committed afterwards is."""
    client, events = app.run()
    with Session(app.engine) as session:
        client.insert(session, Task(number=1))
        session.rollback()
        client.insert(session, Task(number=2))
        session.commit()
    assert events.get(DEADLINE_S).job.args == {"number": 2}
    assert len(rows(app, Job.id)) == 1


def test_works_several_queues(app: Any) -> None:
    """Each queue has its own slots: a queue that is full does not delay another."""
    gate = Gate()

    def body(args: Task, ctx: JobContext) -> None:
        if ctx.job.queue == "slow":
            gate(args, ctx)

    queues = {"slow": QueueConfig(max_workers=1), "fast": QueueConfig(max_workers=1)}
    client, events = app.run(body, queues=queues)
    for _ in range(3):
        client.insert(app.engine, Task(), InsertOpts(queue="slow"))
    gate.wait_began()
    client.insert(app.engine, Task(), InsertOpts(queue="fast"))
    assert events.get(DEADLINE_S).job.queue == "fast"
    gate.open.set()
    assert [events.get(DEADLINE_S).job.queue for _ in range(3)] == ["slow"] * 3


def test_finds_jobs_by_polling_alone(app: Any) -> None:
    """A client that neither listens nor is notified still works jobs, by polling."""
    client, events = app.run(poll_only=True, poll_interval=0.05, notify="off")
    client.insert(app.engine, Task())
    assert isinstance(events.get(DEADLINE_S), JobCompleted)


def test_is_notified_of_jobs_of_other_clients(app: Any, database_url: str) -> None:
    """A job that another client inserts wakes this client long before its next poll."""
    client, events = app.run(poll_interval=600)
    other_engine = create_engine(database_url)
    other = Client(other_engine, schema=app.schema)
    # The producer's first look may come before or after the first insert; only the second insert
    # proves that the producer is woken.
    for _ in range(2):
        with Session(other_engine) as session, session.begin():
            other.insert(session, Task())
        assert isinstance(events.get(DEADLINE_S), JobCompleted)
    client.stop()
    other.flush_announcements(DEADLINE_S)
    other_engine.dispose()


def test_two_clients_work_each_job_once(app: Any, database_url: str) -> None:
    """Of 5,000 jobs for which two clients compete, each is worked exactly once."""
    count = 5_000
    lock = threading.Lock()
    worked: Counter[int] = Counter()
    all_done = threading.Event()

    def body(args: Task, ctx: JobContext) -> None:
        with lock:
            worked[args.number] += 1
            if len(worked) == count:
                all_done.set()

    other_engine = create_engine(database_url)
    one = app.client(body, slots=10)
    two = app.client(body, slots=10, engine=other_engine)
    jobs = (Task(number=number) for number in range(count))
    assert one.insert_many_fast(app.engine, jobs) == count
    one.start()
    two.start()
    assert all_done.wait(60), f"{len(worked)} of {count} jobs were worked"
    one.stop()
    two.stop()
    other_engine.dispose()
    assert set(worked.values()) == {1}
    assert states(app) == {JobState.completed: count}
    assert {row.attempt for row in rows(app, Job.attempt)} == {1}


# --- outcomes


def test_retries_what_fails_and_discards_it_at_last(app: Any) -> None:
    """An exception is recorded and the job retried; once its attempts are spent it is discarded."""
    client, events = app.run(raising(ValueError("no luck")), backoff=Constant(delay=0))
    job = client.insert(app.engine, Task(), InsertOpts(max_attempts=3)).job
    seen = []
    for _ in range(3):
        event = events.get(DEADLINE_S)
        assert isinstance(event, JobFailed)
        assert isinstance(event.error, ValueError)
        seen.append(event.job.state)
        client._launcher.wake("default")
    assert seen == [JobState.available, JobState.available, JobState.discarded]
    row = client.get(app.engine, job.id)
    assert (row.state, row.attempt) == (JobState.discarded, 3)
    assert [entry["attempt"] for entry in row.errors] == [1, 2, 3]
    assert {entry["error"] for entry in row.errors} == {"ValueError: no luck"}
    assert all("raise error" in entry["trace"] for entry in row.errors)


def test_waits_out_a_long_backoff(app: Any) -> None:
    """A failed job with a long backoff is retryable until the backoff is over."""
    event = work_one(app, raising(ValueError("x")), backoff=Constant(delay=3600))
    assert isinstance(event, JobFailed)
    assert event.job.state is JobState.retryable
    assert states(app) == {JobState.retryable: 1}


def test_cancels_when_the_worker_says_so(app: Any) -> None:
    """JobCancel cancels a job, whatever attempts are left, and records its reason."""
    event = work_one(app, raising(JobCancel("gone")))
    assert isinstance(event, JobCancelled)
    [row] = rows(app, Job.state, Job.errors)
    assert row.state == JobState.cancelled
    assert row.errors[0]["error"] == "JobCancelError: gone"


def test_snoozes_when_the_worker_says_so(app: Any) -> None:
    """JobSnooze schedules the job for later, gives its attempt back and records no error."""
    event = work_one(app, raising(JobSnooze(timedelta(hours=1))))
    assert isinstance(event, JobSnoozed)
    [row] = rows(app, Job.state, Job.attempt, Job.errors, Job.metadata_)
    assert (row.state, row.attempt, row.errors or []) == (JobState.scheduled, 0, [])
    assert row.metadata["snoozes"] == 1


def test_times_out_by_the_context(app: Any) -> None:
    """A worker that checks its context learns that its time is over, and the attempt fails."""

    def body(args: Task, ctx: JobContext) -> None:
        ctx.wait(DEADLINE_S)
        ctx.raise_if_cancelled()

    event = work_one(app, body, job_timeout=0.05)
    assert isinstance(event, JobFailed)
    [row] = rows(app, Job.state, Job.errors)
    assert row.state in {JobState.available, JobState.retryable}
    assert "timed out after 0.05 s" in row.errors[0]["error"]


def test_keeps_what_was_done_in_spite_of_the_time(app: Any) -> None:
    """A worker that returns successfully after its timeout has done its work: it is completed."""

    def body(args: Task, ctx: JobContext) -> None:
        ctx.wait(DEADLINE_S)

    assert isinstance(work_one(app, body, job_timeout=0.05), JobCompleted)


def test_keeps_metadata_and_output(app: Any) -> None:
    """Metadata and output that a worker stages are merged into its job, even if it then fails."""

    def body(args: Task, ctx: JobContext) -> None:
        ctx.set_metadata("step", 2)
        ctx.record_output({"pages": 3})
        raise ValueError("after that")

    assert isinstance(work_one(app, body), JobFailed)
    [row] = rows(app, Job.metadata_)
    assert row.metadata == {"step": 2, "output": {"pages": 3}}


def test_survives_unknown_kinds(app: Any) -> None:
    """A job whose kind has no worker fails and is retried, and does not affect other jobs."""
    client = app.client()
    lost = insert_job(app.engine, app.schema, kind="nobody")
    events = client.subscribe(JobEvent)
    client.start()
    assert isinstance(events.get(DEADLINE_S), JobFailed)
    row = client.get(app.engine, lost)
    assert row.state in {JobState.available, JobState.retryable}
    assert (
        row.errors[0]["error"]
        == "job kind is not registered in the client's Workers bundle: nobody"
    )
    client.insert(app.engine, Task())
    assert isinstance(events.get(DEADLINE_S), JobCompleted)


@pytest.mark.parametrize("args", [{"number": "many"}, {"number": None}, [1], "text", 7])
def test_survives_undecodable_args(app: Any, args: Any) -> None:
    """Args that do not fit their type are recorded as a failure and do not affect other jobs."""
    insert_job(app.engine, app.schema, kind="task", args=args, max_attempts=1)
    _, events = app.run()
    event = events.get(DEADLINE_S)
    assert isinstance(event, JobFailed)
    assert event.job.state is JobState.discarded
    [row] = rows(app, Job.errors)
    assert "args of kind 'task' do not fit Task" in row.errors[0]["error"]


@pytest.mark.parametrize("metadata", [[1], "text", 7])
def test_survives_odd_metadata(app: Any, metadata: Any) -> None:
    """A job whose metadata is not an object is still taken out of `running`."""
    insert_job(app.engine, app.schema, kind="task", args={}, metadata_=metadata)
    client, events = app.run(raising(JobSnooze(3600)))
    events.get(DEADLINE_S)
    client.stop()
    assert states(app)[JobState.running] == 0


class _Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _SilentCancel(JobCancel):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), _Silent(), _SilentCancel("x")],
    ids=lambda error: type(error).__name__,
)
def test_survives_whatever_is_raised(app: Any, error: BaseException) -> None:
    """Whatever a worker raises, its job does not stay running and the client works on."""
    failing = {0}

    def body(args: Task, ctx: JobContext) -> None:
        if args.number in failing:
            raise error

    client, events = app.run(body, slots=1)
    client.insert(app.engine, Task(number=0), InsertOpts(max_attempts=1))
    assert isinstance(events.get(DEADLINE_S), JobFailed | JobCancelled)
    assert states(app)[JobState.running] == 0
    client.insert(app.engine, Task(number=1))
    assert isinstance(events.get(DEADLINE_S), JobCompleted)


def test_another_jobs_loss_is_a_failure_of_this_one(app: Any) -> None:
    """A worker that raises another job's AttemptLost fails; its own job does not stay running."""
    event = work_one(app, raising(AttemptLost(987_654, 1)))
    assert isinstance(event, JobFailed)
    assert states(app)[JobState.running] == 0


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_a_log_filter_that_raises_loses_nothing(
    app: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """If the application's log filter raises in the client's threads, each job is worked once."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    caplog.set_level(level, logger="riverrun")
    handler, main = logging.Handler(), threading.current_thread()

    def needs_a_request(_: logging.LogRecord) -> bool:
        if threading.current_thread() is not main:
            raise RuntimeError("there is no request in this thread")
        return False

    handler.addFilter(needs_a_request)
    worked = Counter[int]()

    def body(args: Task, ctx: JobContext) -> None:
        worked[args.number] += 1
        if args.number % 2:
            raise ValueError("x")

    client, events = app.run(body)
    logging.getLogger().addHandler(handler)
    try:
        client.insert_many(
            app.engine, [(Task(number=n), InsertOpts(max_attempts=1)) for n in (0, 1)]
        )
        ended = {type(events.get(DEADLINE_S)) for _ in range(2)}
        client.stop()
    finally:
        logging.getLogger().removeHandler(handler)
    assert ended == {JobCompleted, JobFailed}
    assert worked == {0: 1, 1: 1}


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3)], ids=repr)
def test_a_broken_backoff_loses_nothing(app: Any, error: BaseException) -> None:
    """If a backoff raises, River's backoff is used instead."""

    def backoff(job: JobRow, now: Any) -> Any:
        raise error

    event = work_one(app, raising(ValueError("x")), backoff=backoff)
    assert isinstance(event, JobFailed)
    assert states(app)[JobState.running] == 0


def test_a_listener_that_exits_harms_nothing(app: Any) -> None:
    """A listener that raises SystemExit, where it is called, costs no job and no thread."""
    client = app.client(slots=1)
    counted, events = Counter[type](), client.subscribe(JobEvent)

    def exit_(event: Any) -> None:
        counted[type(event)] += 1
        raise SystemExit(3)

    client.listen(exit_)
    client.start()
    for number in range(3):
        client.insert(app.engine, Task(number=number))
        assert type(events.get(DEADLINE_S)) is JobCompleted
    client.stop()
    assert counted[JobCompleted] == 3
    assert states(app) == {JobState.completed: 3}


# --- cancelled from outside


@pytest.mark.parametrize("by", ["same client", "session", "other client"])
def test_cancels_a_running_job(app: Any, database_url: str, by: str) -> None:
    """However a running job is cancelled, its worker is notified and the job is then cancelled."""
    gate = Gate()
    client, events = app.run(gate)
    job = client.insert(app.engine, Task()).job
    gate.wait_began()
    match by:
        case "same client":
            client.cancel(app.engine, job.id)
        case "session":
            with Session(app.engine) as session, session.begin():
                client.cancel(session, job.id)
        case _:
            other_engine = create_engine(database_url)
            Client(other_engine, schema=app.schema).cancel(other_engine, job.id)
            other_engine.dispose()
    assert isinstance(events.get(DEADLINE_S), JobCancelled)
    assert client.get(app.engine, job.id).state is JobState.cancelled


# --- ctx.transaction()


def test_commits_effects_and_completion_together(app: Any) -> None:
    """A worker's writes in ctx.transaction() and the completion of its job are one commit."""

    def body(args: Task, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            ctx.client.insert(session, Task(number=1), InsertOpts(queue="unworked"))

    assert isinstance(work_one(app, body), JobCompleted)
    one, two = rows(app, Job.state, Job.queue)
    assert (one.state, two.state) == (JobState.completed, JobState.available)


def test_rolls_back_what_raises_inside(app: Any) -> None:
    """If the block raises, nothing is committed and the attempt has failed."""

    def body(args: Task, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            ctx.client.insert(session, Task(number=1), InsertOpts(queue="unworked"))
            raise ValueError("inside")

    assert isinstance(work_one(app, body), JobFailed)
    assert len(rows(app, Job.id)) == 1


def test_stays_completed_whatever_is_raised_after(app: Any) -> None:
    """After ctx.transaction() the job is completed; a later error of the worker is only logged."""

    def body(args: Task, ctx: JobContext) -> None:
        with ctx.transaction():
            pass
        raise ValueError("after")

    event = work_one(app, body)
    assert isinstance(event, JobCompleted)
    assert isinstance(event.error, ValueError)
    [row] = rows(app, Job.state, Job.errors)
    assert (row.state, row.errors or []) == (JobState.completed, [])


@pytest.mark.parametrize("how", ["deleted", "retaken"])
def test_commits_nothing_for_an_attempt_that_was_lost(app: Any, how: str) -> None:
    """If the job was deleted or claimed again, AttemptLost is raised and nothing is committed."""
    raised: list[BaseException] = []
    over = threading.Event()

    def body(args: Task, ctx: JobContext) -> None:
        try:
            with ctx.transaction() as session:
                ctx.client.insert(session, Task(number=1), InsertOpts(queue="unworked"))
                mine = Job.id == ctx.job.id
                if how == "deleted":
                    change(app, delete(Job).where(mine))
                else:
                    change(app, update(Job).where(mine).values(attempt=Job.attempt + 1))
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            over.set()

    client, events = app.run(body)
    client.insert(app.engine, Task())
    assert over.wait(DEADLINE_S), "the worker never ended"
    client.stop()
    assert [type(error) for error in raised] == [AttemptLost]
    left = rows(app, Job.attempt, Job.queue)
    assert [(row.attempt, row.queue) for row in left] == (
        [] if how == "deleted" else [(2, "default")]
    )
    with pytest.raises(TimeoutError):
        events.get(0)


def test_refuses_a_second_transaction(app: Any) -> None:
    """ctx.transaction() can be used once per attempt, and cannot be nested."""
    refused: list[str] = []

    def body(args: Task, ctx: JobContext) -> None:
        with ctx.transaction():
            with pytest.raises(ClientNotReady) as nested, ctx.transaction():
                pass
            refused.append(str(nested.value))
        with pytest.raises(ClientNotReady) as again, ctx.transaction():
            pass
        refused.append(str(again.value))

    assert isinstance(work_one(app, body), JobCompleted)
    assert len(refused) == 2


# --- stop


def test_a_soft_stop_lets_jobs_end(app: Any) -> None:
    """A soft stop waits for running jobs; their completion is written before stop() returns."""
    gate = Gate()
    client, _ = app.run(gate, soft_stop_timeout=None)
    client.insert(app.engine, Task())
    gate.wait_began()
    stopper = threading.Thread(target=client.stop)
    stopper.start()
    assert not client.wait(0.2), "stop did not wait for the running job"
    gate.open.set()
    stopper.join(DEADLINE_S)
    assert not stopper.is_alive(), "stop did not return"
    assert client.wait(0)
    assert states(app) == {JobState.completed: 1}


@pytest.mark.parametrize("how", ["soft-stop timeout", "cancel", "hurry"])
def test_a_hard_stop_gives_jobs_back(app: Any, how: str) -> None:
    """A job that a stop interrupts is available again, its attempt given back, without an error."""
    gate = Gate()
    soft = 0.05 if how == "soft-stop timeout" else None
    client, events = app.run(gate, soft_stop_timeout=soft)
    client.insert(app.engine, Task())
    gate.wait_began()
    if how == "hurry":
        stopper = threading.Thread(target=client.stop)
        stopper.start()
        assert not client.wait(0.2)
        client.hurry()
        stopper.join(DEADLINE_S)
        assert not stopper.is_alive(), "hurry() did not end the stop"
    else:
        client.stop(cancel=how == "cancel")
    assert isinstance(events.get(DEADLINE_S), JobInterrupted)
    [row] = rows(app, Job.state, Job.attempt, Job.errors)
    assert (row.state, row.attempt, row.errors or []) == (JobState.available, 0, [])


def test_a_stop_names_what_still_runs(app: Any) -> None:
    """If a worker ignores its context, stop() raises an error that names the job."""
    gate = Gate(deaf=True)
    client, _ = app.run(gate, hard_stop_timeout=0.05)
    job = client.insert(app.engine, Task()).job
    gate.wait_began()
    slots = [t for t in threading.enumerate() if t.name.startswith("riverrun.slot")]
    with pytest.raises(StopTimeout, match=rf"\b{job.id} \(task\)"):
        client.stop(timeout=0)
    assert not client.running
    gate.open.set()
    for slot in slots:
        slot.join(DEADLINE_S)


def test_gives_back_what_was_claimed_ahead(app: Any) -> None:
    """A stop gives back jobs that were claimed and have not begun, along with their attempts."""
    gate = Gate()
    client, _ = app.run(gate, slots=1, soft_stop_timeout=None)
    producer = client._services.producers["default"]
    producer._ahead.jobs = 5  # as it would be after many short jobs
    client.insert_many(app.engine, [Task(number=n) for n in range(4)])
    gate.wait_began()
    gate.open.set()
    client.stop()
    done = len(gate.calls)
    for row in rows(app, Job.id, Job.state, Job.attempt):
        ran = row.id in gate.calls
        expected = (JobState.completed, 1) if ran else (JobState.available, 0)
        assert (row.state, row.attempt) == expected
    assert set(gate.calls.values()) == {1}
    assert 1 <= done <= 4


def test_stop_before_start_and_twice(app: Any) -> None:
    """start() and stop() may be called twice and stop() first; a client can be started again."""
    client = app.client()
    client.stop()
    assert client.wait(0)
    for _ in range(2):
        client.start()
        client.start()
        assert client.running
        assert not client.wait(0)
        events = client.subscribe(JobCompleted)
        client.insert(app.engine, Task())
        events.get(DEADLINE_S)
        client.stop()
        client.stop()
        assert not client.running


def test_with_client(app: Any) -> None:
    """`with client:` starts the client and stops it."""
    client = app.client()
    events = client.subscribe(JobCompleted)
    with client as entered:
        assert entered is client
        client.insert(app.engine, Task())
        events.get(DEADLINE_S)
    assert not client.running
    assert states(app) == {JobState.completed: 1}


# --- what is refused


def _threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("riverrun.")}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"schema": "not_there"}, SchemaMissing),
        ({"workers": None}, ClientNotReady),
        ({"workers": Workers()}, ClientNotReady),
        ({"queues": None}, ClientNotReady),
    ],
)
def test_a_start_that_fails_leaves_nothing_running(
    engine: Engine, schema: str, options: Any, error: type[Exception]
) -> None:
    """A client that cannot start raises the reason and leaves no thread running."""
    workers = Workers()

    @workers.register
    def work(args: Task) -> None:
        """Do nothing."""

    before = _threads()
    given = {"workers": workers, "queues": {"default": QueueConfig()}, "schema": schema, **options}
    client = Client(engine, **given)
    with pytest.raises(error):
        client.start()
    assert not client.running
    assert _threads() == before
    client.stop()


def test_a_cancel_between_claim_and_begin_is_not_lost(app: Any, came: Came) -> None:
    """A job that is cancelled while the answer to its claim is under way does not begin."""
    claimed, go_on, notified = (threading.Event() for _ in range(3))
    began: list[Task] = []

    def hold(_: object) -> None:
        claimed.set()
        assert go_on.wait(DEADLINE_S)

    client = app.client(lambda args, _: began.append(args), slots=1)
    client.listen(hold, JobsClaimed)
    events = client.subscribe(JobEvent)
    client.start()
    producers = client._services.producers
    cancel = producers.cancel
    producers.cancel = lambda job_id: (cancel(job_id), notified.set())
    job = client.insert(app.engine, Task()).job
    came(claimed, "the claim")
    other = Client(app.engine, schema=app.schema)

    def looked() -> bool:
        other.cancel(app.engine, job.id)  # again: the client may not have listened before
        return notified.wait(0.1)

    until(looked, "the look at the row that the notification asked for", DEADLINE_S)
    go_on.set()
    assert isinstance(events.get(DEADLINE_S), JobCancelled)
    assert not began
    [error] = client.get(app.engine, job.id).errors
    assert (error["error"], error["trace"]) == ("JobCancelError: job cancelled remotely", "")


def test_a_cancel_reaches_what_was_claimed_ahead(app: Any, came: Came) -> None:
    """A job that is cancelled while it waits in this process for a slot never begins."""
    begun, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    def body(args: Task, _: JobContext) -> None:
        ran.append(args.number)
        begun.set()
        assert go_on.wait(DEADLINE_S)

    client = app.client(body, slots=1)
    events = client.subscribe(JobEvent)
    first, second = client.insert_many(app.engine, [Task(1), Task(2)])
    client.start()
    came(begun, "the first job")
    producer = client._services.producers["default"]
    producer._ahead.jobs = 1
    producer.wake()
    until(
        lambda: client.get(app.engine, second.job.id).state is JobState.running,
        "the second job is claimed",
    )
    client.cancel(app.engine, second.job.id)
    go_on.set()
    assert {events.get(DEADLINE_S).job.id for _ in range(2)} == {first.job.id, second.job.id}
    assert client.get(app.engine, second.job.id).state is JobState.cancelled
    assert ran == [1]


def test_refuses_kinds_without_a_worker(app: Any) -> None:
    """A client with workers refuses kinds that it has no worker for, unless configured not to."""
    with pytest.raises(UnknownKind, match="other"):
        app.client().insert(app.engine, RawArgs(kind="other", encoded={}))
    with pytest.raises(UnknownKind, match="other"):
        app.client().insert_many(app.engine, [Task(), RawArgs(kind="other", encoded={})])
    assert rows(app, Job.id) == []
    easy = app.client(skip_unknown_job_check=True)
    easy.insert(app.engine, RawArgs(kind="other", encoded={}))
    Client(app.engine, schema=app.schema).insert(app.engine, Task())
    assert len(rows(app, Job.id)) == 2


def test_refuses_transactions_on_other_databases(app: Any, server_url: str) -> None:
    """A client does not insert a job into a database where its own workers would never find it."""
    other = create_engine(make_url(server_url).set(database="postgres"))
    client = app.client()
    with Session(other) as session, pytest.raises(WrongDatabase) as refused:
        client.insert(session, Task())
    assert "postgres@" in str(refused.value)
    other.dispose()


def test_accepts_another_engine_on_its_database(app: Any, database_url: str) -> None:
    """Two addresses of the same database count as the same database."""
    other = create_engine(make_url(database_url).update_query_dict({"application_name": "web"}))
    with Session(other) as session, session.begin():
        app.client().insert(session, Task())
    other.dispose()
    assert len(rows(app, Job.id)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"id": ""},
        {"id": "x" * 101},
        {"notify": "sometimes"},
        {"poll_interval": 0},
        {"job_timeout": -1},
        {"soft_stop_timeout": float("nan")},
        {"max_attempts": 0},
        {"queues": {"no good": QueueConfig()}},
    ],
)
def test_refuses_options_out_of_range(engine: Engine, options: Any) -> None:
    """An option out of range is refused when the client is constructed."""
    with pytest.raises(InvalidOption):
        Client(engine, **options)


def test_refuses_what_is_no_engine() -> None:
    """Anything but an Engine is refused, and the error explains why."""
    with pytest.raises(NotATransaction, match="Engine"):
        Client("postgresql://localhost/db")  # type: ignore[arg-type]


def test_runs_no_statement_on_a_worker_s_behalf(app: Any) -> None:
    """While a worker runs, the client keeps no transaction open except the worker's own."""
    open_ones: list[int] = []

    def body(args: Task, ctx: JobContext) -> None:
        with app.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            query = (
                select(func.count())
                .select_from(text("pg_stat_activity"))
                .where(
                    text(
                        "datname = current_database() AND pid <> pg_backend_pid()"
                        " AND state = 'idle in transaction'"
                    )
                )
            )
            # The leader's services run short transactions; one opened for this attempt
            # would stay open.
            for _ in range(50):
                open_ones.append(connection.execute(query).scalar_one())
                if open_ones[-1] == 0 or ctx.wait(0.1):
                    break

    assert isinstance(work_one(app, body), JobCompleted)
    assert open_ones[-1] == 0


def test_commits_nothing_once_it_is_cancelled(app: Any) -> None:
    """A cancel that arrives within ctx.transaction() rolls it back, and the job is cancelled."""

    def body(args: Task, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            ctx.client.insert(session, Task(number=1), InsertOpts(queue="unworked"))
            ctx.client.cancel(app.engine, ctx.job.id)
            assert ctx.wait(DEADLINE_S)

    assert isinstance(work_one(app, body), JobCancelled)
    [row] = rows(app, Job.state)
    assert row.state is JobState.cancelled


def test_a_short_backoff_does_not_wait_for_the_poll(app: Any) -> None:
    """A job due again in 50 ms is tried again then, however long the poll interval is."""
    times: list[float] = []

    def body(args: Task, ctx: JobContext) -> None:
        times.append(time.monotonic())
        if len(times) < 4:
            raise ValueError("again")

    client, events = app.run(
        body, backoff=Constant(delay=0.05, jitter=0), poll_interval=20, poll_only=True
    )
    client.insert(app.engine, Task())
    assert [type(events.get(DEADLINE_S)) for _ in range(4)] == [JobFailed] * 3 + [JobCompleted]
    assert times[-1] - times[0] < 10


def test_a_short_backoff_is_counted_from_when_it_is_written(app: Any) -> None:
    """A short backoff counts from when the failure is written, so no poll is needed afterwards."""
    failed, again = threading.Event(), threading.Event()
    lock = text(f"SELECT FROM {app.schema}.river_job WHERE id = :id FOR UPDATE")

    def body(args: Task, ctx: JobContext) -> None:
        if ctx.job.attempt > 1:
            again.set()
            return
        # The row stays locked until well after the backoff is over.
        connection.execute(lock, {"id": ctx.job.id})
        failed.set()
        raise ValueError("again")

    client = app.client(
        body, backoff=Constant(delay=0.01, jitter=0), poll_interval=60, poll_only=True
    )
    with app.engine.connect() as connection:
        client.start()
        client.insert(app.engine, Task())
        assert failed.wait(DEADLINE_S), "the first attempt did not come"
        assert not again.wait(0.3), "it was tried again before its failure was written"
    assert again.wait(DEADLINE_S), "it was not tried again once its failure was written"

"""What the three kinds of executors promise: threads, coroutines and processes on one queue."""

import asyncio
import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from process_workers import Crunch, crunch, crunch_by_name
from riverrun import (
    InsertOpts,
    JobArgs,
    JobCancelled,
    JobCompleted,
    JobContext,
    JobFailed,
    JobInterrupted,
    JobSnooze,
    JobSnoozed,
    JobState,
    JobStuckHandlerResult,
    Plugin,
    QueueConfig,
    Workers,
)
from riverrun.errors import InvalidOption, InvalidWorker
from riverrun.execution import processes
from waiting import DEADLINE_S, until

from .conftest import Task


@attrs.frozen
class Fetch(JobArgs, kind="fetch"):
    number: int = 0


def client_of(app: Any, *functions: Any, slots: int = 4, **options: Any) -> Any:
    """Return a started client with `functions` as its workers, and its events."""
    workers = Workers()
    how = options.pop("how", {})
    for function in functions:
        workers.register(**how)(function)
    queues = {"default": QueueConfig(max_workers=slots)}
    return app.run(workers=workers, queues=queues, **options)


def ended(events: Any, count: int) -> list[Any]:
    """Return the next `count` events."""
    return [events.get(DEADLINE_S) for _ in range(count)]


def process_client(app: Any, **options: Any) -> Any:
    """Return a client that works Crunch in processes, and the client's events."""
    options = {"processes": 2, **options}
    return client_of(app, crunch, how={"executor": "process"}, **options)


# Coroutines


def test_coroutines_run_by_the_hundred_in_one_thread(app: Any) -> None:
    """As many coroutines as there are slots wait at once, all in the client's single event loop."""
    threads, at_once, most = set(), 0, 0

    async def fetch(args: Fetch) -> None:
        nonlocal at_once, most
        threads.add(threading.current_thread().name)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.3)
        at_once -= 1

    client, events = client_of(app, fetch, slots=300)
    client.insert_many(app.engine, [Fetch(n) for n in range(600)])
    assert {type(event) for event in ended(events, 600)} == {JobCompleted}
    assert threads == {"riverrun.loop"}
    assert 250 <= most <= 300


def test_a_coroutine_ends_in_every_way(app: Any) -> None:
    """Whatever a coroutine raises is recorded as for any other worker."""

    async def fetch(args: Fetch, ctx: JobContext) -> None:
        await asyncio.sleep(0)
        match args.number:
            case 1:
                raise ValueError("no good")
            case 2:
                raise JobSnooze(600)
            case 3:
                await ctx.step_async("one", lambda: asyncio.sleep(0))
                ctx.record_output("done")
            case 4:
                raise asyncio.CancelledError
            case 5:
                await asyncio.sleep(60)

    client, events = client_of(app, fetch, job_timeout=0.3)
    ids = [row.job.id for row in client.insert_many(app.engine, [Fetch(n) for n in range(6)])]
    by_id = {event.job.id: event for event in ended(events, 6)}
    assert [type(by_id[job_id]) for job_id in ids] == [
        JobCompleted,
        JobFailed,
        JobSnoozed,
        JobCompleted,
        JobFailed,
        JobFailed,
    ]
    errors = [[error["error"] for error in client.get(app.engine, job_id).errors] for job_id in ids]
    assert errors[1] == ["ValueError: no good"]
    assert errors[4] == ["CancelledError"]
    assert errors[5] == ["JobTimedOut: job timed out after 0.3 s"]
    assert client.get(app.engine, ids[3]).metadata["output"] == "done"


def test_a_coroutine_is_cancelled_where_it_waits(app: Any) -> None:
    """A cancel reaches a coroutine at its await, and the coroutine may take time to clean up."""
    begun, cleaned = threading.Event(), threading.Event()

    async def fetch(args: Fetch) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    client, events = client_of(app, fetch)
    job = client.insert(app.engine, Fetch()).job
    assert begun.wait(DEADLINE_S)
    client.cancel(app.engine, job.id)
    assert type(events.get(DEADLINE_S)) is JobCancelled
    assert cleaned.is_set()


def test_a_stop_gives_coroutines_back(app: Any) -> None:
    """A hard stop interrupts coroutines that wait, and gives their attempts back."""
    begun = threading.Semaphore(0)

    async def fetch(args: Fetch) -> None:
        begun.release()
        await asyncio.sleep(60)

    client, events = client_of(app, fetch)
    ids = [row.job.id for row in client.insert_many(app.engine, [Fetch(n) for n in range(3)])]
    for _ in ids:
        assert begun.acquire(timeout=DEADLINE_S)
    client.stop(cancel=True)
    assert {type(event) for event in ended(events, 3)} == {JobInterrupted}
    rows = [client.get(app.engine, job_id) for job_id in ids]
    assert {(row.state, row.attempt, len(row.errors)) for row in rows} == {
        (JobState.available, 0, 0)
    }


def test_a_client_starts_again_with_a_new_loop(app: Any) -> None:
    """A client that was stopped and started again works coroutines, too."""

    async def fetch(args: Fetch) -> None:
        await asyncio.sleep(0)

    client, events = client_of(app, fetch)
    for _ in range(2):
        client.start()
        client.insert(app.engine, Fetch())
        assert type(events.get(DEADLINE_S)) is JobCompleted
        client.stop()


def test_plugins_wrap_coroutines(app: Any) -> None:
    """`work_async`, `work_begin` and `work_end` wrap coroutines in the same order as threads."""
    seen: list[str] = []

    class Outer(Plugin):
        async def work_async(self, ctx: Any, call_next: Any) -> None:
            seen.append("outer")
            await call_next()
            seen.append("outer end")

        def work_begin(self, ctx: Any) -> None:
            seen.append("begin")

        def work_end(self, ctx: Any, error: Any) -> Any:
            seen.append(f"end {error!r}")
            return None

    async def fetch(args: Fetch) -> None:
        seen.append("work")
        raise KeyError(1)

    client, events = client_of(app, fetch, plugins=[Outer(), Plugin()])
    client.insert(app.engine, Fetch())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    assert seen == ["outer", "begin", "work", "end KeyError(1)", "outer end"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}], ids=["", "autocommit"])
def test_async_transaction_completes_the_job(
    app: Any, driver: str, options: dict[str, Any]
) -> None:
    """On an AsyncEngine, a worker's writes and the completion of its job are one commit."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    url = app.engine.url.set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg" and "host" in url.query:
        url = url.set(host=None)
    engine = create_async_engine(url, pool_size=1, max_overflow=0, **options)
    name = app.schema
    autocommit: list[bool] = []

    async def fetch(args: Fetch, ctx: JobContext) -> None:
        try:
            async with ctx.async_transaction(engine) as session:
                await session.execute(text(f"CREATE TABLE {name}.effect (number int)"))
                if args.number:
                    raise ValueError("rolled back")
        finally:
            async with engine.connect() as connection:
                autocommit.append(
                    await connection.run_sync(lambda c: c.connection.dbapi_connection.autocommit)
                )
            await engine.dispose()

    client, events = client_of(app, fetch, slots=1)
    client.insert(app.engine, Fetch(1))
    assert type(events.get(DEADLINE_S)) is JobFailed
    job = client.insert(app.engine, Fetch(0)).job
    assert type(events.get(DEADLINE_S)) is JobCompleted
    assert client.get(app.engine, job.id).state is JobState.completed
    assert autocommit == [bool(options)] * 2


# Processes


def test_a_process_works_elsewhere(app: Any) -> None:
    """A worker is called in another process, which is reused, and its output is recorded."""
    client, events = process_client(app)
    client.insert_many(app.engine, [Crunch() for _ in range(6)])
    jobs = [event.job.id for event in ended(events, 6)]
    pids = {client.get(app.engine, job_id).metadata["output"]["pid"] for job_id in jobs}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_no_more_is_claimed_than_processes_work(app: Any) -> None:
    """However many slots there are, no more long jobs are claimed than there are processes.

    Jobs that would only wait for a process are left to other clients.
    """
    client, events = process_client(app, slots=20)
    client.insert_many(app.engine, [Crunch("look") for _ in range(20)])
    own = client._services.producers["default"]
    until(lambda: len(own.executor.running()) == 2, "two jobs")
    own.wake()
    assert len(own.claimed()) == 2
    client.stop(cancel=True)
    assert {type(event) for event in ended(events, 2)} == {JobInterrupted}


def test_queues_take_turns_at_the_processes(app: Any) -> None:
    """A queue's job gets a process although another queue has jobs enough for all of them."""
    workers = Workers()
    workers.register(executor="process")(crunch)
    # The poller is of no use here: at each look all processes are busy.
    client, events = app.run(
        workers=workers, queues={"busy": 20, "quiet": 20}, processes=2, poll_interval=600
    )
    busy, quiet = InsertOpts(queue="busy"), InsertOpts(queue="quiet")
    client.insert_many(app.engine, [(Crunch("nap"), busy) for _ in range(60)])
    assert events.get(DEADLINE_S).job.queue == "busy"
    client.insert(app.engine, Crunch(), quiet)
    # Not within the next few: the machine may be slow, and this thread late.
    ended_in = [events.get(DEADLINE_S).job.queue]
    while ended_in[-1] == "busy":
        ended_in.append(events.get(DEADLINE_S).job.queue)
    assert len(ended_in) < 40
    client.stop(cancel=True)


def test_a_free_process_is_offered_to_other_queues(app: Any) -> None:
    """A queue that found all processes busy claims once one is free, not at the next poll."""
    workers = Workers()
    workers.register(executor="process")(crunch)
    client, events = app.run(
        workers=workers, queues={"first": 20, "second": 20}, processes=1, poll_interval=600
    )
    client.insert(app.engine, Crunch("nap"), InsertOpts(queue="first"))
    until(client._services.producers["first"].executor.running, "the only process is busy")
    client.insert(app.engine, Crunch(), InsertOpts(queue="second"))
    assert [event.job.queue for event in ended(events, 2)] == ["first", "second"]


@pytest.mark.parametrize(
    ("how", "kind", "error"),
    [
        ("raise", JobFailed, "ValueError: no good number"),
        ("raise unpicklable", JobFailed, "WorkerFailed: Unpicklable: held by a lock"),
        ("cancel", JobCancelled, "JobCancelError: no use"),
        ("snooze", JobSnoozed, None),
        ("die", JobFailed, "WorkerProcessDied: the worker's process was killed by signal 9"),
        ("exit", JobFailed, "WorkerProcessDied: the worker's process exited 7"),
        ("system exit", JobFailed, "SystemExit: 3"),
        ("generator", JobFailed, "WorkerDidNotRun: crunch returned a generator"),
    ],
)
def test_a_process_s_end_is_its_attempt_s_only(
    app: Any, how: str, kind: type, error: str | None
) -> None:
    """Whatever happens to a process, its job has an outcome and the next job gets a process."""
    client, events = process_client(app)
    job = client.insert(app.engine, Crunch(how)).job
    assert type(events.get(DEADLINE_S)) is kind
    errors = client.get(app.engine, job.id).errors
    if error is None:
        assert errors == ()
    else:
        assert errors[0]["error"].startswith(error)
    client.insert(app.engine, Crunch())
    while type(event := events.get(DEADLINE_S)) is not JobCompleted:
        assert event.job.id == job.id


def test_a_process_s_end_is_noticed_while_a_program_of_its_lives(app: Any, tmp_path: Path) -> None:
    """A program that a worker started, and that keeps its files open, hides no process's death."""
    client, events = process_client(app, processes=1)
    file = tmp_path / "pid"
    opts = InsertOpts(max_attempts=1, metadata={"file": str(file)})
    client.insert(app.engine, Crunch("leave a program"), opts)
    try:
        failed = events.get(DEADLINE_S)
        client.insert(app.engine, Crunch())
        assert type(events.get(DEADLINE_S)) is JobCompleted
    finally:
        os.kill(int(file.read_text()), signal.SIGKILL)
    assert str(failed.error).startswith("the worker's process was killed by signal 9")


def test_a_process_that_died_while_idle_costs_no_attempt(app: Any) -> None:
    """A process that dies between two jobs is replaced before the next one."""
    client, events = process_client(app, processes=1)
    pids = []
    for _ in range(2):
        job = client.insert(app.engine, Crunch(), InsertOpts(max_attempts=1)).job
        assert type(events.get(DEADLINE_S)) is JobCompleted
        pids.append(client.get(app.engine, job.id).metadata["output"]["pid"])
        [child] = client._services._processes._children
        child.process.kill()
        child.process.join()
    assert pids[0] != pids[1]


def test_a_process_gives_the_context_by_name(app: Any) -> None:
    """In another process, a context parameter that is keyword-only gets the context, too."""
    client, events = client_of(app, crunch_by_name, how={"executor": "process"}, processes=1)
    job = client.insert(app.engine, Crunch("named")).job
    events.get(DEADLINE_S)
    assert client.get(app.engine, job.id).metadata["output"] == "named"


def test_a_worker_that_did_not_run_has_failed(app: Any) -> None:
    """If a worker returns a coroutine that was never awaited, its attempt has failed."""

    def forgot(args: Fetch) -> object:
        return fetch(Fetch())

    async def fetch(args: Fetch) -> None:
        raise AssertionError

    client, events = client_of(app, forgot)
    job = client.insert(app.engine, Fetch()).job
    assert type(events.get(DEADLINE_S)) is JobFailed
    assert client.get(app.engine, job.id).errors[0]["error"].startswith("WorkerDidNotRun: ")


def test_a_process_reports_where_it_raised(app: Any) -> None:
    """The recorded traceback names the line that raised in the other process."""
    client, events = process_client(app)
    job = client.insert(app.engine, Crunch("raise")).job
    events.get(DEADLINE_S)
    assert "process_workers.py" in client.get(app.engine, job.id).errors[0]["trace"]


def test_a_process_keeps_steps_and_metadata(app: Any) -> None:
    """Steps and metadata that a worker stages in another process are recorded with its job."""
    client, events = process_client(app)
    job = client.insert(app.engine, Crunch("steps")).job
    events.get(DEADLINE_S)
    metadata = client.get(app.engine, job.id).metadata
    assert (metadata["river:resumable_step"], metadata["seen"]) == ("one", True)


@pytest.mark.parametrize("how", ["look", "ignore"])
def test_a_process_is_terminated_and_then_killed(
    app: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout cancels a worker's context in its process; a worker that ignores it is killed."""
    monkeypatch.setattr(processes, "KILL_AFTER_S", 0.3)
    client, events = process_client(app, job_timeout=0.3)
    job = client.insert(app.engine, Crunch(how)).job
    assert type(events.get(DEADLINE_S)) is JobFailed
    [error] = client.get(app.engine, job.id).errors[:1]
    assert error["error"] == "JobTimedOut: job timed out after 0.3 s"


def test_a_process_that_reads_nothing_is_killed(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout ends an attempt whose args do not fit into the pipe to a process that hangs."""
    monkeypatch.setattr(processes, "KILL_AFTER_S", 0.3)
    client, events = process_client(app, processes=1, job_timeout=1.0)
    first = client.insert(app.engine, Crunch()).job
    assert type(events.get(DEADLINE_S)) is JobCompleted
    os.kill(client.get(app.engine, first.id).metadata["output"]["pid"], signal.SIGSTOP)
    job = client.insert(app.engine, Crunch("x" * 1_000_000)).job
    assert type(events.get(DEADLINE_S)) is JobFailed
    [error] = client.get(app.engine, job.id).errors[:1]
    assert error["error"] == "JobTimedOut: job timed out after 1 s"
    client.insert(app.engine, Crunch())
    while type(event := events.get(DEADLINE_S)) is not JobCompleted:
        assert event.job.id == job.id


def test_the_wait_for_a_process_is_not_the_job_s_time(app: Any) -> None:
    """A job's timeout does not include its wait for a process."""
    client, events = process_client(app, processes=1, job_timeout=1.0)
    client.insert_many(app.engine, [Crunch("nap") for _ in range(5)])
    assert {type(event) for event in ended(events, 5)} == {JobCompleted}


def test_the_start_of_a_process_is_not_the_job_s_time(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's timeout includes neither the start of its process nor the import of its module."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_application.py").write_text(
        "import multiprocessing, time\n"
        "from process_workers import Crunch\n"
        "if multiprocessing.parent_process():\n"
        "    time.sleep(1.5)\n"
        "def crunch(args: Crunch, ctx: object) -> None:\n"
        "    ctx.raise_if_cancelled()\n"
    )
    application = importlib.import_module("slow_application")
    how = {"executor": "process", "timeout": 1.0}
    client, events = client_of(app, application.crunch, how=how, processes=1)
    client.insert(app.engine, Crunch())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    client.stop()
    # The start of a process has a limit of its own.
    monkeypatch.setattr(processes, "START_S", 0.1)
    client.start()
    client.insert(app.engine, Crunch())
    assert type(events.get(DEADLINE_S)) is JobFailed


def test_a_job_is_cancelled_where_it_waits_for_a_process(app: Any) -> None:
    """A cancel reaches a job that has a slot and waits for a process; other waiting jobs go on."""
    client, events = process_client(app, processes=1)
    # As if the queue had workers of other kinds, too: otherwise the client would claim only as
    # many jobs as there are processes.
    client._services.producers["default"]._only_processes = False
    looks = client.insert(app.engine, Crunch("look")).job
    until(multiprocessing.active_children, "the first one has the process")
    waiting = [client.insert(app.engine, Crunch()).job for _ in range(3)]
    until(
        lambda: all(client.get(app.engine, job.id).state == "running" for job in waiting),
        "all are claimed",
    )
    client.cancel(app.engine, waiting[0].id)
    event = events.get(DEADLINE_S)
    assert (type(event), event.job.id) == (JobCancelled, waiting[0].id)
    client.cancel(app.engine, looks.id)
    rest = {event.job.id: type(event) for event in ended(events, 3)}
    expected = dict.fromkeys((job.id for job in waiting[1:]), JobCompleted)
    assert rest == {looks.id: JobCancelled, **expected}


def test_those_that_wait_outlive_the_process_they_wait_for(app: Any) -> None:
    """If the only process dies, the next waiting job gets a new one, and none is forgotten."""
    client, events = process_client(app, processes=1)
    dies = client.insert(app.engine, Crunch("die"), InsertOpts(max_attempts=1)).job
    ids = [result.job.id for result in client.insert_many(app.engine, [Crunch()] * 5)]
    ways = {event.job.id: type(event) for event in ended(events, 6)}
    assert ways == {dies.id: JobFailed, **dict.fromkeys(ids, JobCompleted)}


def test_a_process_that_cannot_be_made_fails_one_attempt(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a process cannot be started, one attempt fails; jobs behind it try for themselves."""
    made = processes._Child
    tries = iter([made, refused, refused])
    monkeypatch.setattr(processes, "_Child", lambda: next(tries, made)())
    client, events = process_client(app, processes=1, slots=6)
    jobs = [Crunch("die"), *[Crunch()] * 5]
    client.insert_many(app.engine, [(job, InsertOpts(max_attempts=1)) for job in jobs])
    ways = sorted(type(event).__name__ for event in ended(events, 6))
    assert ways == ["JobCompleted"] * 3 + ["JobFailed"] * 3


def refused() -> None:
    """Fail as a system does that has no room for another process."""
    raise BlockingIOError("no more processes")


def test_what_no_other_process_can_import_is_refused() -> None:
    """A function without a name in a module is refused: another process could not import it."""

    def local(args: Crunch) -> None:
        pass

    async def fetch(args: Fetch) -> None:
        pass

    workers = Workers()
    with pytest.raises(InvalidWorker, match="top of a module"):
        workers.register(executor="process")(local)
    with pytest.raises(InvalidWorker, match="coroutine"):
        workers.register(executor="process")(fetch)
    with pytest.raises(InvalidWorker, match="async def"):
        workers.register(executor="coroutine")(crunch)
    with pytest.raises(InvalidOption, match="thread, coroutine, process"):
        workers.register(executor="fibre")(crunch)


# All together


def test_one_queue_mixes_all_three(app: Any) -> None:
    """Threads, coroutines and processes share one queue and never use more slots than it has."""
    lock = threading.Lock()
    at_once = most = 0

    def count(change: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += change
            most = max(most, at_once)

    def work(args: Task) -> None:
        count(1)
        time.sleep(0.01)
        count(-1)

    async def fetch(args: Fetch) -> None:
        count(1)
        await asyncio.sleep(0.01)
        count(-1)

    workers = Workers()
    workers.register(work)
    workers.register(fetch)
    workers.register(executor="process")(crunch)
    queues = {"default": QueueConfig(max_workers=6)}
    client, events = app.run(workers=workers, queues=queues, processes=1)
    jobs: list[Any] = []
    for number in range(50):
        jobs += [Task(number), Fetch(number), Crunch()]
    client.insert_many(app.engine, jobs)
    assert {type(event) for event in ended(events, 150)} == {JobCompleted}
    assert most <= 12


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("kind", [Task, Fetch])
def test_a_slot_that_is_free_takes_the_next_job(app: Any, kind: type, slots: int) -> None:
    """A free slot takes the next job at once, before any poll, even if all others stay busy."""
    kept = slots - 1
    free = threading.Event()
    worked: list[int] = []

    def work(args: Task) -> None:
        if args.number < kept:
            free.wait(60)
        time.sleep(0.02)  # longer than a claim, so that nothing is claimed ahead
        worked.append(args.number)

    async def fetch(args: Fetch) -> None:
        while args.number < kept and not free.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        worked.append(args.number)

    client, _ = client_of(app, work, fetch, slots=slots, poll_interval=3600.0)
    # A wake-up may come by chance now and then, so a few jobs would prove nothing.
    client.insert_many(app.engine, [kind(number) for number in range(kept + 20)])
    try:
        until(lambda: len(worked) == 20, "the slots that are free work", 30)
    finally:
        free.set()


# Workers that do not return


def test_a_thread_that_never_looks_can_be_interrupted(app: Any) -> None:
    """With `interrupt`, an endless loop is interrupted after its timeout, as timed out."""

    def work(args: Task) -> None:
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))

    client, events = client_of(app, work, how={"interrupt": True}, job_timeout=0.2)
    job = client.insert(app.engine, Task()).job
    assert type(events.get(DEADLINE_S)) is JobFailed
    assert client.get(app.engine, job.id).errors[0]["error"].startswith("JobTimedOut")


def test_a_stuck_job_may_be_given_another_slot(app: Any) -> None:
    """While the only slot is stuck, a replacement works; afterwards there is one slot again."""
    free = threading.Event()
    stuck: list[int] = []
    most = at_once = 0
    lock = threading.Lock()

    def work(args: Task) -> None:
        nonlocal most, at_once
        if args.number == 1:
            free.wait(DEADLINE_S)
            return
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1

    def handler(job: Any) -> JobStuckHandlerResult:
        stuck.append(job.id)
        return JobStuckHandlerResult(add_worker_slot=True)

    client, events = client_of(
        app, work, slots=1, job_timeout=0.5, job_stuck_threshold=0, job_stuck_handler=handler
    )
    first = client.insert(app.engine, Task(1)).job
    client.insert_many(app.engine, [Task(2) for _ in range(5)])
    assert all(event.job.id != first.id for event in ended(events, 5))
    assert stuck == [first.id]
    free.set()
    assert events.get(DEADLINE_S).job.id == first.id
    client.insert_many(app.engine, [Task(3) for _ in range(10)])
    ended(events, 10)
    assert most == 1

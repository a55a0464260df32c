"""A client while it starts, stops and forks, and while its queues change."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from riverrun import InsertOpts, JobCompleted, JobContext, QueueConfig, Workers
from riverrun.client import launcher, services
from riverrun.errors import ClientNotReady, InvalidOption, StartTimeout
from riverrun.events import JobEvent, JobInterrupted
from riverrun.runtime import stocktaker
from riverrun.runtime.heartbeat import Heartbeat
from riverrun.runtime.producer import Producer
from runtime.conftest import Task
from waiting import DEADLINE_S, until

Came = Callable[[threading.Event, str], None]


@contextmanager
def held_start(app: Any, client: Any) -> Iterator[None]:
    """Hold `client`'s start while the block runs, then let it finish."""
    starting = threading.Thread(target=client.start)
    waits = text(
        "SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
        " WHERE relname = 'river_queue' AND NOT granted"
    )
    with app.engine.begin() as connection:
        lock = f"LOCK TABLE {app.schema}.river_queue IN ACCESS EXCLUSIVE MODE"
        connection.execute(text(lock))
        starting.start()
        until(lambda: connection.execute(waits).scalar_one(), "the start waits for the lock")
        yield
    starting.join(DEADLINE_S)
    assert not starting.is_alive(), "the start did not end"


@pytest.mark.parametrize("table", ["river_job", "river_queue", "riverrun_client"])
def test_a_start_does_not_wait_for_a_lock_for_ever(
    app: Any, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start whose statement is not answered ends with an error that says so, and leaves nothing.

    The client can be started once the lock is released.
    """
    monkeypatch.setattr(launcher, "STATEMENT_S", 0.1)
    monkeypatch.setattr(services, "ANSWER_S", 0.1)
    client = app.client()
    with app.engine.begin() as connection:
        connection.execute(text(f"LOCK TABLE {app.schema}.{table} IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StartTimeout, match=r"did not answer within 0.1 s\. A lock on one of"):
            client.start()
        waiting = f"SELECT FROM pg_locks WHERE NOT granted AND relation = '{app.schema}.{table}'"
        assert not connection.execute(text(waiting + "::regclass")).all(), "a statement still waits"
    assert not client.running
    monkeypatch.undo()
    client.start()
    assert client.running


def test_a_queue_added_during_the_start_is_worked(app: Any) -> None:
    """A queue added during the start is listed at once, worked, and can be removed again."""
    client = app.client()
    events = client.subscribe(JobEvent)
    client.insert(app.engine, Task(), InsertOpts(queue="late"))
    with held_start(app, client):
        client.queues.add("late", QueueConfig(max_workers=1))
        assert list(client.queues) == ["default", "late"]
    assert events.get(DEADLINE_S).job.queue == "late"
    client.queues.remove("late")
    assert list(client.queues) == ["default"]


def test_a_queue_removed_during_the_start_is_not_worked(app: Any) -> None:
    """A queue removed during the start is not worked; its jobs wait for another client."""
    queues = {"default": QueueConfig(), "gone": QueueConfig()}
    client = app.client(queues=queues)
    events = client.subscribe(JobEvent)
    with held_start(app, client):
        client.queues.remove("gone")
    assert client._services.producers.names == ["default"]
    left = client.insert(app.engine, Task(), InsertOpts(queue="gone")).job
    client.insert(app.engine, Task())
    assert events.get(DEADLINE_S).job.queue == "default"
    assert client.get(app.engine, left.id).state == "available"


def test_a_stop_during_the_start_stops_what_it_started(app: Any) -> None:
    """A stop during the start waits for the start and then leaves nothing running."""
    client = app.client()
    stopping = threading.Thread(target=client.stop)
    with held_start(app, client):
        stopping.start()
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
    assert not client.running


def interrupt(
    patch: pytest.MonkeyPatch, of: type, name: str, handler: Callable[[], object]
) -> None:
    """Call `handler` once within the method `name`, as a signal handler could be called there."""
    method, called = getattr(of, name), threading.Event()

    def interrupted(*args: Any, **rest: Any) -> Any:
        if not called.is_set():
            called.set()
            handler()
        return method(*args, **rest)

    patch.setattr(of, name, interrupted)


def in_time(call: Callable[[], object]) -> None:
    """Call `call` in a thread of its own, and fail if it does not return."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "it waits for itself"


def test_a_stop_that_interrupts_the_start(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may stop a client that its thread starts: it stops once it has started."""
    client = app.client()
    interrupt(monkeypatch, Heartbeat, "run_once", client.stop)
    in_time(client.start)
    assert not client.running
    assert client.wait(0)
    client.start()
    assert client.running


@pytest.mark.parametrize("cancel", [False, True])
def test_a_stop_that_interrupts_the_stop(
    app: Any, monkeypatch: pytest.MonkeyPatch, came: Came, cancel: bool
) -> None:
    """A signal handler may call stop() within stop(), and cancel running jobs by it."""
    began, ended = threading.Event(), threading.Event()

    def body(args: Task, ctx: JobContext) -> None:
        began.set()
        until(lambda: ctx.cancelled or ended.is_set(), "it is cancelled or may end")
        ctx.raise_if_cancelled()

    client, events = app.run(body)
    client.insert(app.engine, Task())
    came(began, "the job")

    def handler() -> None:
        client.stop(cancel=cancel)
        if not cancel:
            ended.set()

    interrupt(monkeypatch, Producer, "give_back", handler)
    in_time(client.stop)
    assert type(events.get(DEADLINE_S)) is (JobInterrupted if cancel else JobCompleted)
    assert not client.running


def test_a_start_that_interrupts_the_stop(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that would wait for the stop that it interrupts is refused."""
    client, _ = app.run()
    errors: list[Exception] = []

    def handler() -> None:
        try:
            client._launcher.start(client.config, client=client, hub=client.hub, jobs=None)
        except ClientNotReady as error:
            errors.append(error)

    interrupt(monkeypatch, Producer, "give_back", handler)
    in_time(client.stop)
    assert len(errors) == 1


@pytest.mark.parametrize("table", ["river_queue", "river_job"])
def test_a_stop_while_a_table_is_locked(
    app: Any, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """A stop does not wait for statements that wait for a lock for as long as at other times."""
    monkeypatch.setattr(services, "ANSWER_S", 10 * DEADLINE_S)
    monkeypatch.setattr(services, "MAINTENANCE_S", 10 * DEADLINE_S)
    monkeypatch.setattr(services, "PATIENCE_S", 0.1)
    monkeypatch.setattr(stocktaker, "ANSWER_S", 0.1)
    client, _ = app.run(poll_interval=0.05)
    waits = text(
        "SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
        " WHERE relname = :table AND NOT granted"
    )
    with app.engine.begin() as connection:
        lock = f"LOCK TABLE {app.schema}.{table} IN ACCESS EXCLUSIVE MODE"
        connection.execute(text(lock))
        client._services.queue_reporter.wake()
        until(lambda: connection.execute(waits, {"table": table}).scalar_one(), "one waits for it")
        in_time(client.stop)
    assert not client.running


def test_a_second_ctrl_c_leaves_nothing(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyboardInterrupt in stop() stops the client all the same, or its threads would go on."""
    client, _ = app.run()

    def ctrl_c() -> None:
        raise KeyboardInterrupt

    interrupt(monkeypatch, Producer, "give_back", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        client.stop()
    assert not client.running
    left = {each.name for each in threading.enumerate() if each.name.startswith("riverrun.")}
    assert left <= {"riverrun.announcer"}


@pytest.mark.parametrize(
    "name", ["riverrun.poller", "riverrun.slot", "riverrun.statement_canceller"]
)
def test_a_start_without_threads_leaves_nothing(
    app: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """If the process cannot start threads, start() fails as a whole, and succeeds later."""
    start = threading.Thread.start
    allowed = threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name and not allowed.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    client = app.client()
    if name != "riverrun.slot":
        with pytest.raises(RuntimeError):
            client.start()
        assert not client.running
        assert not [
            each.name
            for each in threading.enumerate()
            if each.name.startswith("riverrun.") and not each.daemon
        ]
    allowed.set()
    events = client.subscribe(JobEvent)
    client.start()
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted


def test_an_add_does_not_wait_for_a_remove(app: Any, came: Came) -> None:
    """While a queue with long jobs is being removed, other queues can be added and removed."""
    begun, release = threading.Event(), threading.Event()

    def body(args: Task, ctx: JobContext) -> None:
        begun.set()
        assert release.wait(DEADLINE_S)

    queues = {"default": QueueConfig(), "slow": QueueConfig()}
    client, _ = app.run(body, queues=queues, soft_stop_timeout=None)
    client.insert(app.engine, Task(), InsertOpts(queue="slow"))
    came(begun, "the job begins")
    removing = threading.Thread(target=client.queues.remove, args=("slow",))
    removing.start()
    try:
        client.queues.add("other")
        client.queues.remove("other")
        assert "slow" in client.queues
        for refused in (client.queues.remove, client.queues.add):
            with pytest.raises((ClientNotReady, InvalidOption)):
                refused("slow")
        assert removing.is_alive()
    finally:
        release.set()
        removing.join(DEADLINE_S)
    assert list(client.queues) == ["default"]


FORKS = """
import os, sys, threading
from sqlalchemy import create_engine
from riverrun import Client, InsertOpts, QueueConfig, RawArgs, Workers

workers, begun, release = Workers(), threading.Event(), threading.Event()

@workers.register(kind="task")
def work(args: RawArgs) -> None:
    begun.set()
    release.wait(60)

engine = create_engine(sys.argv[1])
queues = {"default": QueueConfig(), "slow": QueueConfig()}
client = Client(engine, workers=workers, queues=queues, schema=sys.argv[2])
client.start()
client.insert(engine, RawArgs(kind="task", encoded={}), InsertOpts(queue="slow"))
assert begun.wait(30)
removing = threading.Thread(target=client.queues.remove, args=("slow",))
removing.start()
while "slow" not in client._launcher._removing: pass
pid = os.fork()
if pid == 0:
    client.queues.add("other")
    client.start()
    assert sorted(client.queues) == ["default", "other"], list(client.queues)
    client.stop()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
release.set()
removing.join()
client.stop()
print("both worked")
"""


def test_a_child_forked_during_a_remove_can_add(database_url: str, schema: str) -> None:
    """A child forked during a remove is blocked by none of the parent's locks.

    Its client can add queues, start and stop.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, database_url, schema],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "both worked\n", done.stderr


def refusals(app: Any, call: Callable[[JobContext], object], **options: Any) -> list[str]:
    """Return the refusals that a worker of queue `default` got from `call`."""
    problems = []

    def body(args: Task, ctx: JobContext) -> None:
        try:
            call(ctx)
        except ClientNotReady as error:
            problems.append(str(error))

    queues = {"default": QueueConfig(), "other": QueueConfig()}
    client, events = app.run(body, queues=queues, **options)
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    return problems


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        (lambda ctx: ctx.client.queues.remove("default"), True),
        (lambda ctx: ctx.client.queues.remove("default", timeout=0), True),
        (lambda ctx: ctx.client.stop(), True),
        (lambda ctx: ctx.client.__exit__(None, None, None), True),
        (lambda ctx: asyncio.run(ctx.client.__aexit__(None, None, None)), True),
        (lambda ctx: asyncio.run(asyncio.to_thread(ctx.client.stop)), True),
        (lambda ctx: ctx.client.queues.remove("other"), False),
        (lambda ctx: ctx.client.queues.add("new"), False),
    ],
)
def test_a_worker_never_waits_for_itself(
    app: Any, call: Callable[[JobContext], object], refused: bool
) -> None:
    """A call that would wait for the worker that makes it is refused; other calls are allowed."""
    assert bool(refusals(app, call)) is refused


@pytest.mark.parametrize("direct", [True, False])
def test_a_coroutine_never_waits_for_itself(app: Any, direct: bool) -> None:
    """A coroutine's call that would wait for itself is refused, in the loop and in a thread."""
    workers = Workers()

    @workers.register
    async def work(args: Task, ctx: JobContext) -> None:
        for call in (ctx.client.stop, lambda: ctx.client.queues.remove("default")):
            with pytest.raises(ClientNotReady):
                call() if direct else await asyncio.to_thread(call)
        if not direct:
            with pytest.raises(ClientNotReady):
                await ctx.client.__aexit__(None, None, None)
            await asyncio.to_thread(ctx.client.queues.remove, "other")

    queues = {"default": QueueConfig(), "other": QueueConfig()}
    client, events = app.run(workers=workers, queues=queues)
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted


def test_what_outlives_its_attempt_may_stop_the_client(app: Any, came: Came) -> None:
    """A thread that a worker started with its own context may stop the client after the attempt."""
    import contextvars

    ended, stopped = threading.Event(), threading.Event()

    def body(args: Task, ctx: JobContext) -> None:
        context = contextvars.copy_context()

        def stop() -> None:
            came(ended, "the attempt ends")
            context.run(ctx.client.stop)
            stopped.set()

        threading.Thread(target=stop).start()

    client, events = app.run(body)
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    ended.set()
    came(stopped, "the client stops")


def test_a_listener_may_not_wait_for_its_own_thread(app: Any, came: Came) -> None:
    """A listener that stops the client that calls it is refused, and the client works on."""
    refused = threading.Event()
    client = app.client()

    def record(event: JobEvent) -> None:
        try:
            client.stop()
        except ClientNotReady:
            refused.set()

    client.listen(record, JobCompleted)
    client.start()
    client.insert(app.engine, Task())
    came(refused, "the listener is refused")
    assert client.running

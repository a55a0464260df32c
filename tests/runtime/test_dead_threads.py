"""Threads of the client that die, and an event loop that is stopped while attempts run in it."""

import asyncio
import ctypes
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from riverrun import Constant, InsertOpts, JobCompleted, JobFailed, QueueConfig, Workers
from riverrun.events import JobEvent
from riverrun.maintenance.job_scheduler import JobScheduler
from riverrun.runtime.service import Service
from runtime.conftest import Task
from waiting import DEADLINE_S, until


def throw_into(service: Service) -> None:
    """Raise SystemExit in the service's thread, wherever that is."""
    thread = service._thread
    assert thread is not None
    assert thread.ident is not None
    thrown = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )
    assert thrown == 1


SERVICES = (
    "heartbeat stuck_jobs completer poller queue_reporter elector stand_in stocktaker notifier "
    "statement_canceller producer maintenance"
)


@pytest.mark.parametrize("name", SERVICES.split())
def test_a_service_that_ended_is_started_again(
    app: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If the thread of any service dies, an ERROR names it and the client works on."""
    caplog.set_level(logging.ERROR)
    client, events = app.run(poll_interval=0.1)
    services = client._services
    until(lambda: client.leads, "the client leads")
    service: Service
    if name == "producer":
        service = services.producers["default"]
    elif name == "maintenance":
        service = next(
            each for each in services.health.services() if isinstance(each, JobScheduler)
        )
    else:
        service = next(
            each for each in services.health.services() if each.name == f"riverrun.{name}"
        )
    # If a thread fails while it begins, the thread that starts it waits for ever.
    until(lambda: service.alive, "its thread lives")
    throw_into(service)
    service.interrupt()
    until(lambda: f"{service.name} ended unexpectedly" in caplog.text, "it ends")
    assert "SystemExit" in caplog.text
    until(lambda: service._thread is not None and service._thread.is_alive(), "it lives")
    assert service.failing_s > 0
    for number in range(3):
        client.insert(app.engine, Task(number=number))
        assert type(events.get(DEADLINE_S)) is JobCompleted


def test_a_thread_that_died_is_replaced_when_there_may_be_threads_again(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead thread is replaced once a new one can start; until then the client is unhealthy."""
    client, events = app.run(poll_interval=0.1)
    services = client._services
    poller, start, allowed = services.poller, threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == poller.name and not allowed.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    # A thread that has finished although its service was not stopped.
    gone = threading.Thread(target=bool)
    start(gone)
    gone.join()
    old, poller._thread = poller._thread, gone
    until(lambda: not client.healthy, "it is unhealthy")
    assert any("poller" in problem for problem in client.problems)
    allowed.set()
    until(lambda: poller._thread not in {gone, old}, "it is replaced")
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    client.stop()
    old.join(DEADLINE_S)


def test_a_leader_without_threads_maintains_once_it_gets_them(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that got no thread for its maintenance starts it when there may be threads again."""
    start, refused, allowed = threading.Thread.start, threading.Event(), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "riverrun.job_scheduler" and not allowed.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    client, events = app.run(poll_interval=0.1)
    assert refused.wait(DEADLINE_S), "it is not elected"
    allowed.set()
    client.insert(app.engine, Task(), InsertOpts(delay=0.1))
    assert type(events.get(DEADLINE_S)) is JobCompleted


def leave_at_once(loop: asyncio.AbstractEventLoop) -> None:
    """Stop the loop."""
    loop.stop()


async def exit_in_a_subtask() -> None:
    """Raise SystemExit in a subtask, as a library that exits would."""

    async def child() -> None:
        sys.exit(3)

    await asyncio.gather(child())


async def interrupt_in_a_subtask() -> None:
    """Raise KeyboardInterrupt in a subtask, as an interrupted library would."""

    async def child() -> None:
        raise KeyboardInterrupt

    await asyncio.gather(child())


async def exit_in_a_callback() -> None:
    """Raise SystemExit in a callback of the loop."""
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.01)
    raise RuntimeError("after the loop went on")


async def stop_the_loop() -> None:
    """Stop the running loop, as some old scripts do."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    raise RuntimeError("after the loop went on")


async def close_the_loop() -> None:
    """Close the running loop, which asyncio refuses."""
    asyncio.get_running_loop().close()


KILLERS = (
    exit_in_a_subtask,
    interrupt_in_a_subtask,
    exit_in_a_callback,
    stop_the_loop,
    close_the_loop,
)


@pytest.mark.parametrize("kill", KILLERS, ids=lambda each: each.__name__)
def test_the_event_loop_runs_on(app: Any, kill: Callable[[], Awaitable[None]]) -> None:
    """Whatever stops the event loop fails only the attempt that did it; others are not affected."""
    workers, begun = Workers(), threading.Semaphore(0)
    killed = asyncio.Event()

    @workers.register
    async def work(args: Task) -> None:
        if args.number:
            begun.release()
            await killed.wait()
            return
        try:
            await kill()
        finally:
            killed.set()

    client = app.client(workers=workers, queues={"default": QueueConfig(max_workers=10)})
    events = client.subscribe(JobEvent)
    client.start()
    client.insert_many(app.engine, [Task(number=number) for number in range(1, 6)])
    for _ in range(5):
        assert begun.acquire(timeout=DEADLINE_S), "an attempt did not begin"
    killer = client.insert(app.engine, Task(), InsertOpts(max_attempts=1)).job
    ended = {each.job.id: each for each in (events.get(DEADLINE_S) for _ in range(6))}
    assert type(ended.pop(killer.id)) is JobFailed
    assert {(type(each), each.job.attempt) for each in ended.values()} == {(JobCompleted, 1)}
    client.insert(app.engine, Task(number=7))
    assert type(events.get(DEADLINE_S)) is JobCompleted


def test_a_loop_that_is_lost_is_replaced(app: Any) -> None:
    """If the event loop is lost, its attempts fail and are tried again in a new loop."""
    workers, lost = Workers(), threading.Event()
    cleaned = []

    def fail(*_: object) -> None:
        raise OSError("a file descriptor that other code closed")

    @workers.register
    async def work(args: Task) -> None:
        if lost.is_set():
            return
        try:
            if args.number == 3:
                lost.set()
                asyncio.get_running_loop()._selector.select = fail  # type: ignore[attr-defined]
            await asyncio.sleep(DEADLINE_S)
        finally:
            cleaned.append(args.number)

    client = app.client(
        workers=workers,
        queues={"default": QueueConfig(max_workers=4, claim_ahead=0)},
        backoff=Constant(delay=0.1),
    )
    client.insert_many(app.engine, [Task(number=number) for number in range(6)])
    events = client.subscribe(JobEvent)
    client.start()
    ended = [events.get(DEADLINE_S) for _ in range(10)]
    failed = [each for each in ended if type(each) is JobFailed]
    assert {type(each) for each in ended} == {JobFailed, JobCompleted}
    assert sorted(cleaned) == [0, 1, 2, 3]
    assert len(failed) == 4
    assert {type(each.error).__name__ for each in failed} == {"EventLoopLost"}


def test_attempts_that_a_stranger_cancelled_have_failed(app: Any) -> None:
    """Attempts cancelled by foreign code have failed, even if their task had not yet run.

    Such a task has run no code of its own that could have reported its outcome.
    """
    workers, done = Workers(), threading.Event()

    @workers.register
    async def work(args: Task) -> None:
        if args.number == 0 and not done.is_set():
            done.set()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    client = app.client(
        workers=workers,
        queues={"default": QueueConfig(max_workers=10)},
        backoff=Constant(delay=0.1),
    )
    client.insert_many(app.engine, [Task(number=number) for number in range(6)])
    events = client.subscribe(JobCompleted)
    client.start()
    for _ in range(6):
        events.get(DEADLINE_S)


def test_the_loop_begins_when_there_may_be_threads_again(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs claimed for the event loop wait until its thread can be started; none is lost."""
    start, refused, allowed = threading.Thread.start, threading.Event(), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "riverrun.loop" and not allowed.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    workers = Workers()

    @workers.register
    async def work(args: Task) -> None: ...

    client, events = app.run(workers=workers)
    client.insert(app.engine, Task())
    assert refused.wait(DEADLINE_S), "nobody tried to start the loop"
    until(lambda: not client.healthy, "it is unhealthy")
    allowed.set()
    assert type(events.get(DEADLINE_S)) is JobCompleted

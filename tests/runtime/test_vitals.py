"""What a client's heartbeat says about its process, as others read it."""

import platform
import sys
import threading
from typing import Any

import pytest
from sqlalchemy import Engine

import riverrun
from riverrun import JobContext, QueueConfig, RawArgs, Workers
from riverrun.runtime.event_loop import LoopThread
from riverrun.verbs.beat import beat
from riverrun.verbs.status import list_clients
from waiting import DEADLINE_S, until

from .conftest import App, Task


def test_a_heartbeat_records_what_runs(app: App) -> None:
    """A heartbeat has the versions, the executors, the bounds, the jobs and the memory."""
    began, over = threading.Event(), threading.Event()
    workers = Workers()

    async def unused(args: RawArgs) -> None:
        """Be a worker in the event loop."""

    def work(args: Task, ctx: JobContext) -> None:
        began.set()
        over.wait(DEADLINE_S)

    workers.register(work)
    workers.register(unused, kind="unused")
    queues = {"default": QueueConfig(max_workers=1, claim_ahead=7), "idle": QueueConfig()}
    client = app.client(workers=workers, queues=queues)
    client.start()
    [row] = list_clients(app.engine, schema=app.schema)
    assert (row.version, row.python) == (riverrun.__version__, platform.python_version())
    assert row.executors == ("coroutine", "thread")
    assert row.claim_ahead == {"default": 7, "idle": QueueConfig().claim_ahead}
    assert (row.running, row.ahead, row.loop_s) == (0, 0, None)
    assert row.looked_s is not None
    if sys.platform == "linux":
        assert row.memory_bytes is not None
        assert row.memory_bytes > 1_000_000
    client.insert(app.engine, Task(1))
    assert began.wait(DEADLINE_S), "the job did not begin"
    try:
        client._services.heartbeat.run_once()  # type: ignore[union-attr]
        [row] = list_clients(app.engine, schema=app.schema)
        assert (row.running, row.ahead) == (1, 0)
    finally:
        over.set()


def test_a_loop_that_is_held_up_is_noticed() -> None:
    """A coroutine that blocks the event loop shows as a loop that does not turn."""
    loop = LoopThread(on_lost=lambda: None)
    assert loop.silent_s() is None
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(DEADLINE_S)

    try:
        loop.call(hold)
        assert held.wait(DEADLINE_S), "the loop did not start"
        assert loop.silent_s() == 0.0  # it has only just been asked
        first = until(loop.silent_s, "a turn that is missing")
        assert until(lambda: (again := loop.silent_s()) and again > first, "a longer silence")
        go_on.set()
        until(lambda: loop.silent_s() == 0.0, "a turn of the loop")
    finally:
        go_on.set()
        loop.stop()
    assert loop.silent_s() is None


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"slots": 3, "running": "1", "problems": "no", "executors": None, "version": 7},
        {"looked_s": True, "loop_s": "x", "memory_bytes": 1.5, "claim_ahead": [], "ahead": {}},
    ],
)
def test_another_releases_heartbeat_is_read(
    engine: Engine, schema: str, state: dict[str, Any]
) -> None:
    """Of a heartbeat from other code, what is missing or odd reads as unknown."""
    beat(engine, "other", hostname="h", pid=1, queues=["q"], state=state, schema=schema)
    [row] = list_clients(engine, schema=schema)
    assert (dict(row.slots), row.running, row.problems, row.executors) == ({}, 0, (), ())
    assert (row.version, row.python, row.looked_s, row.loop_s) == (None, None, None, None)
    assert (row.claim_ahead, row.ahead, row.memory_bytes) == ({}, None, None)

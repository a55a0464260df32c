"""Fixtures of the tests that run threads: a client that is always stopped, and ways to wait."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from riverrun import Client, JobContext, Workers
from riverrun.events import JobEvent, Subscription
from runtime.task import Task
from started import Started
from waiting import DEADLINE_S

Body = Callable[[Task, JobContext], object]


class App(Started):
    """Makes clients that work Task."""

    def client(self, body: Body | None = None, *, slots: int = 4, **options: Any) -> Client:
        """Return a client that works Task with `body`. It is not started."""
        workers = Workers()

        def work(args: Task, ctx: JobContext) -> None:
            if body is not None:
                body(args, ctx)

        workers.register(work)
        return self.make(workers, slots=slots, **options)

    def run(self, body: Body | None = None, **options: Any) -> tuple[Client, Subscription]:
        """Return a started client and a subscription to all its events."""
        client = self.client(body, **options)
        events = client.subscribe(JobEvent)
        client.start()
        return client, events


@pytest.fixture
def app(engine: Engine, schema: str) -> Iterator[App]:
    """Clients on the test's schema, all of which are stopped when the test ends."""
    app = App(engine, schema)
    yield app
    app.stop()
    left = [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("riverrun.") and not thread.daemon
    ]
    assert not left, f"threads that nobody joined: {left}"


@pytest.fixture
def came() -> Callable[[threading.Event, str], None]:
    """Wait for an event; if it is not set in time, fail with a text that names it."""

    def wait(event: threading.Event, what: str) -> None:
        assert event.wait(DEADLINE_S), f"{what}: not within {DEADLINE_S:g} s"

    return wait

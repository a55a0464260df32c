"""Polling finds jobs without a notification, with one statement for all queues."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from factories import insert_job
from riverrun import QueueConfig
from riverrun.events import JobCompleted
from waiting import DEADLINE_S

QUEUES = [f"queue_{number}" for number in range(10)]


def test_polls_all_queues_with_one_statement(
    app: Any, database_url: str, came: Callable[[threading.Event, str], None]
) -> None:
    """An idle client looks once per interval at all its queues, and claims only where jobs wait."""
    own = create_engine(database_url)
    claims, polls = [], []
    begun, polled = threading.Event(), threading.Event()

    @event.listens_for(own, "before_cursor_execute")
    def count(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "LATERAL" in statement:
            polls.append(statement)
            if len(polls) >= 20:
                polled.set()
        elif "SKIP LOCKED" in statement and "'running'" in statement:
            claims.append(statement)
            # One is the client's own, which checks that its tables exist.
            if len(claims) == 1 + len(QUEUES):
                begun.set()

    client, events = app.run(
        engine=own,
        queues={name: QueueConfig() for name in QUEUES},
        poll_only=True,
        poll_interval=0.05,
        leader_election_disabled=True,
    )
    came(begun, "the first claim of each queue")
    polls.clear()
    came(polled, "twenty polls")
    assert len(claims) == 1 + len(QUEUES)
    insert_job(app.engine, app.schema, kind="task", queue=QUEUES[7])
    done = events.get(DEADLINE_S)
    assert isinstance(done, JobCompleted)
    assert done.job.queue == QUEUES[7]
    assert len(claims) < 1 + 2 * len(QUEUES)
    client.stop()
    own.dispose()


@pytest.mark.parametrize("busy", [1, 0])
def test_a_slow_queue_waits_for_its_own_interval(app: Any, engine: Engine, busy: int) -> None:
    """Each queue is looked at within its own poll interval, whatever the others' intervals are."""
    intervals = (0.05, 600.0)
    _, events = app.run(
        queues={
            "quick": QueueConfig(poll_interval=intervals[1 - busy]),
            "other": QueueConfig(poll_interval=intervals[busy]),
        },
        poll_only=True,
    )
    name = ("other", "quick")[busy]
    for _ in range(3):
        insert_job(engine, app.schema, kind="task", queue=name)
        assert events.get(DEADLINE_S).job.queue == name

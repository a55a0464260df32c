"""A claim that a crash or a failover of the server has undone, and that is made again."""

import threading
from typing import Any

import pytest
from sqlalchemy import text

from riverrun import JobContext
from riverrun.events import JobCompleted
from runtime.task import Task
from waiting import DEADLINE_S, until


@pytest.mark.parametrize("same", [True, False], ids=["same client", "other client"])
def test_the_earlier_attempt_does_not_end_the_later(app: Any, *, same: bool) -> None:
    """The outcome of the earlier attempt changes nothing, although both have one number."""
    release = [threading.Event(), threading.Event()]
    begun: list[int] = []

    def body(_: Task, __: JobContext) -> None:
        begun.append(len(begun))
        release[begun[-1]].wait(DEADLINE_S)

    def state() -> Any:
        with app.engine.connect() as connection:
            return connection.scalar(text(f"SELECT state FROM {app.schema}.river_job"))

    first, events = app.run(body, queues=["default"])
    if not same:
        _, events = app.run(body, queues=["other"])
    first.insert(app.engine, Task())
    until(lambda: len(begun) == 1, "the first attempt")
    with app.engine.begin() as connection:
        connection.execute(
            text(
                f"UPDATE {app.schema}.river_job SET state = 'available', attempt = 0,"
                " attempted_at = NULL, attempted_by = NULL, queue = :queue"
            ),
            {"queue": "default" if same else "other"},
        )
    until(lambda: len(begun) == 2, "the second attempt")
    release[0].set()
    services = first._launcher.services
    until(lambda: len(services.producers.running()) == int(same), "the end of the first attempt")
    until(lambda: services.completer.unwritten(DEADLINE_S) == frozenset(), "its outcome's writing")
    assert state() == "running"
    release[1].set()
    assert isinstance(events.get(DEADLINE_S), JobCompleted)
    assert state() == "completed"

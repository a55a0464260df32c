"""The log of a job while it runs, by its client's heartbeat."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from factories import insert_job
from riverrun import JobContext, JobLog, Plugin
from riverrun.verbs import get_live_log, list_clients
from riverrun.verbs.beat import beat
from waiting import DEADLINE_S

from .conftest import App, Task

Came = Callable[[threading.Event, str], None]

logger = logging.getLogger("host.mailer")


class Talker:
    """A worker that logs some lines, and goes on when the test lets it."""

    def __init__(self) -> None:
        self.logged, self.go_on = threading.Event(), threading.Event()

    def __call__(self, args: Task, ctx: JobContext) -> None:
        for number in range(1_000):
            logger.warning("line %s of %s", number, args.number)
        self.logged.set()
        self.go_on.wait(DEADLINE_S)


def beat_now(client: Any) -> None:
    """Write a heartbeat of the client without waiting for its time."""
    client._services.heartbeat.run_once()


def test_a_running_jobs_log_is_shown(app: App, came: Came) -> None:
    """The last 2,000 characters of a running attempt are there with the heartbeat, then no more."""
    talker = Talker()
    client, events = app.run(talker, plugins=[JobLog(live=True)])
    job = client.insert(app.engine, Task(7)).job
    try:
        came(talker.logged, "the lines")
        beat_now(client)
        live = get_live_log(app.engine, job.id, schema=app.schema)
        assert live is not None
        assert (live.attempt, len(live.text)) == (1, 2_000)
        assert live.text.endswith("line 999 of 7\n")
        assert get_live_log(app.engine, job.id + 1, schema=app.schema) is None
        # The list of clients does not read it.
        [row] = list_clients(app.engine, schema=app.schema)
        assert row.running == 1
    finally:
        talker.go_on.set()
    events.get(DEADLINE_S)
    assert get_live_log(app.engine, job.id, schema=app.schema) is None
    beat_now(client)
    assert client.plugins[0].live_logs() == {}
    assert "line 999 of 7" in client.get(app.engine, job.id).metadata["river:log"][0]["log"]


def test_a_log_is_live_only_by_wish(app: App, came: Came) -> None:
    """Without `live` no heartbeat has a log, and the log is kept when the attempt ends."""
    talker = Talker()
    client, events = app.run(talker, plugins=[JobLog()])
    job = client.insert(app.engine, Task()).job
    try:
        came(talker.logged, "the lines")
        beat_now(client)
        assert get_live_log(app.engine, job.id, schema=app.schema) is None
    finally:
        talker.go_on.set()
    events.get(DEADLINE_S)
    assert "river:log" in client.get(app.engine, job.id).metadata


class Broken(Plugin):
    """A plugin whose logs cannot be read."""

    def live_logs(self) -> Mapping[int, tuple[int, str]]:
        raise RuntimeError("broken")


def test_a_plugin_that_fails_leaves_the_heartbeat(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """A heartbeat is written although a plugin fails at it, and that is logged once."""
    client, _ = app.run(plugins=[Broken()])
    for _ in range(2):
        beat_now(client)
    assert client.healthy
    lines = [each for each in caplog.messages if "could not return its live logs" in each]
    assert len(lines) == 1


@pytest.mark.parametrize(
    "logs",
    [None, [], "x", {"1": "x"}, {"1": {"attempt": 2, "log": "of another"}}, {"1": {"attempt": 1}}],
)
def test_another_heartbeat_is_no_log(app: App, logs: Any) -> None:
    """What is not the log of the running attempt is not shown, whatever wrote it."""
    job_id = insert_job(app.engine, app.schema, id=1, state="running")
    state = {"logs": logs, "version": "x"}
    beat(app.engine, "client", hostname="h", pid=1, queues=[], state=state, schema=app.schema)
    assert get_live_log(app.engine, job_id, schema=app.schema) is None
    assert list_clients(app.engine, schema=app.schema)[0].version == "x"

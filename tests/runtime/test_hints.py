"""A notification from any sender causes a look at the tables and nothing else."""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text

from riverrun import (
    Interval,
    JobCancelled,
    JobCompleted,
    JobContext,
    PeriodicJob,
    QueueConfig,
    QueuePaused,
    QueueResumed,
)
from riverrun.events import JobEvent
from riverrun.maintenance import elector
from riverrun.runtime import queue_reporter
from runtime.conftest import Task
from waiting import DEADLINE_S, until

Came = Callable[[threading.Event, str], None]


def notify(app: Any, topic: str, *payloads: object) -> None:
    """Send notifications, as any role that may connect can."""
    with app.engine.begin() as connection:
        for payload in payloads:
            message = payload if isinstance(payload, str) else json.dumps(payload)
            channel = f"{app.schema!s}.river_{topic}"
            connection.execute(text("SELECT pg_notify(:c, :p)"), {"c": channel, "p": message})


class Slow:
    """A worker that runs until it is released or cancelled."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()

    def __call__(self, args: Task, ctx: JobContext) -> None:
        self.begun.set()
        while not self.release.is_set():
            ctx.wait(0.02)
            ctx.raise_if_cancelled()


def test_a_notification_alone_cancels_nothing(app: Any, came: Came) -> None:
    """A notification alone cancels no job; it cancels a job whose row records the cancel."""
    slow = Slow()
    client, events = app.run(slow)
    job = client.insert(app.engine, Task()).job
    came(slow.begun, "the job begins")
    looks = threading.Semaphore(0)

    @event.listens_for(app.engine, "before_cursor_execute")
    def executing(*args: Any) -> None:
        if "cancel_attempted_at" in f"{args[2]} {args[3]}":
            looks.release()

    try:
        payload = {"action": "cancel", "job_id": job.id, "queue": "default"}
        notify(app, "control", payload, {**payload, "job_id": -1}, {**payload, "job_id": True})
        assert looks.acquire(timeout=DEADLINE_S), "nobody looked"
        notify(app, "control", payload)
        assert looks.acquire(timeout=DEADLINE_S), "nobody looked again"
    finally:
        event.remove(app.engine, "before_cursor_execute", executing)
    slow.release.set()
    assert type(events.get(DEADLINE_S)) is JobCompleted

    slow.begun.clear()
    slow.release.clear()
    job = client.insert(app.engine, Task()).job
    came(slow.begun, "the second begins")
    app.client().cancel(app.engine, job.id)
    assert type(events.get(DEADLINE_S)) is JobCancelled


def test_a_notification_alone_pauses_nothing(app: Any) -> None:
    """A notification alone pauses neither a queue nor all of them, and resumes no paused queue."""
    client, events = app.run()
    queue_events = client.subscribe(QueuePaused, QueueResumed)
    for name in ("default", "*"):
        notify(app, "control", {"action": "pause", "queue": name})
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    with pytest.raises(TimeoutError):
        queue_events.get(0.3)
    app.client().queues.pause(app.engine, "default")
    assert queue_events.get(DEADLINE_S) == QueuePaused(queue="default")
    for name in ("default", "*"):
        notify(app, "control", {"action": "resume", "queue": name})
    with pytest.raises(TimeoutError):
        queue_events.get(0.5)
    assert client._services.producers["default"].paused


def test_changes_without_a_notification_are_found_on_a_busy_channel(
    app: Any, came: Came, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause or a cancel without a notification takes effect in time on a busy channel, too.

    The look at the tables goes by the clock, not by the silence of the channel.
    """
    monkeypatch.setattr(queue_reporter, "LOOK_S", 0.5)
    slow, busy = Slow(), threading.Event()
    client, events = app.run(slow)
    queue_events = client.subscribe(QueuePaused)
    job = client.insert(app.engine, Task()).job
    came(slow.begun, "the job begins")

    def chatter() -> None:
        while not busy.wait(0.05):
            notify(app, "insert", {"queue": "elsewhere"})

    talking = threading.Thread(target=chatter)
    talking.start()
    try:
        with app.engine.begin() as connection:
            change = f"UPDATE {app.schema}.river_queue SET paused_at = now()"
            connection.execute(text(change))
            mark = """metadata || '{"cancel_attempted_at": "2026-01-01T00:00:00Z"}'"""
            change = f"UPDATE {app.schema}.river_job SET metadata = {mark} WHERE id = {job.id}"
            connection.execute(text(change))
        assert queue_events.get(DEADLINE_S) == QueuePaused(queue="default")
        assert type(events.get(DEADLINE_S)) is JobCancelled
    finally:
        busy.set()
        talking.join()


def test_notifications_move_the_leadership_only_now_and_then(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many requests to resign, the first is obeyed at once, then one in ten seconds."""
    hour = 3_600.0
    monkeypatch.setattr(elector, "RESIGN_S", hour)
    monkeypatch.setattr(elector, "INTERVAL_S", 0.2)
    clients = [app.client(id=name) for name in ("ada", "bob")]
    for client in clients:
        client.start()
    until(lambda: any(client.leads for client in clients), "one leads")
    first = next(client for client in clients if client.leads)
    terms = [first.id]
    for _ in range(50):
        notify(app, "leadership", {"leader_id": "", "action": "request_resign"})
        leader = next((client.id for client in clients if client.leads), None)
        if leader not in {None, terms[-1]}:
            terms.append(leader)
        threading.Event().wait(0.02)
    until(lambda: any(client.leads for client in clients), "one leads")
    assert first.id in terms


def test_notifications_that_find_nothing_cost_few_looks(app: Any) -> None:
    """A flood of notifications causes some tens of looks a second; a new job is still found."""
    client, events = app.run(poll_interval=60)
    client.insert(app.engine, Task())
    events.get(DEADLINE_S)
    looks = 0

    @event.listens_for(app.engine, "before_cursor_execute")
    def executing(*args: Any) -> None:
        nonlocal looks
        looks += "SKIP LOCKED" in args[2]

    try:
        began = time.monotonic()
        while time.monotonic() - began < 2:
            notify(app, "insert", *[{"queue": "default"}] * 20)
            threading.Event().wait(0.002)
        took_s = time.monotonic() - began
    finally:
        event.remove(app.engine, "before_cursor_execute", executing)
    assert 0 < looks <= 20 + 45 * took_s
    other = app.client()
    other.insert(app.engine, Task())
    assert type(events.get(10)) is JobCompleted


def test_invented_names_are_not_kept(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Names of queues that this client does not work are not kept, nor logged one line each."""
    caplog.set_level(logging.INFO)
    client, events = app.run(queues={"default": QueueConfig()})
    payloads = [{"action": "pause", "queue": f"queue_{number}"} for number in range(3_000)]
    notify(app, "control", *payloads)
    notify(app, "control", *[{"action": "cancel", "job_id": n, "queue": "x"} for n in range(3_000)])
    notify(app, "insert", *["no json"] * 1_000, *[{"queue": f"q{n}"} for n in range(1_000)])
    app.client().insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    services = client._services
    for number in range(100):
        services.producers.pause(f"queue_{number}", paused=True)
    assert set(services.producers._paused_at) <= {"default", "*"}
    assert not services.queue_reporter._suspects
    lines = [each for each in caplog.records if "ignored" in each.message]
    assert 0 < len(lines) < 5


def test_a_resignation_that_is_none_moves_nothing(app: Any) -> None:
    """A false notification of a resignation changes no leader: followers look and find one."""
    clients = [app.client(id=name) for name in ("ada", "bob")]
    for client in clients:
        client.start()
    until(lambda: any(client.leads for client in clients), "one leads")
    leader = next(client for client in clients if client.leads)
    payload = {"leader_id": leader.id, "action": "resigned"}
    notify(app, "leadership", *[payload] * 200)
    app.client().insert(app.engine, Task())
    threading.Event().wait(0.3)
    assert [client for client in clients if client.leads] == [leader]


def test_events_of_jobs_come_while_notifications_come(app: Any) -> None:
    """Notifications with every action and with values of every type cause no error."""
    client, events = app.run()
    values: list[object] = [None, True, -1, 10**30, 1.5, "", "*" * 300, [], {}, ["default"]]
    for topic in ("insert", "control", "leadership"):
        for action in ("cancel", "pause", "resume", "resigned", "metadata_changed", None):
            payloads = [{"action": action, "queue": v, "job_id": v, "leader_id": v} for v in values]
            notify(app, topic, *payloads)
    client.insert(app.engine, Task())
    assert isinstance(events.get(DEADLINE_S), JobEvent)


def test_notifications_about_periodic_jobs_cost_few_looks(app: Any, came: Came) -> None:
    """A flood of requests that are none causes a look a second; a real one is still found."""
    ran = threading.Event()
    jobs = [PeriodicJob(Interval(3600), Task, id="hourly")]
    client, _ = app.run(lambda *_: ran.set(), periodic_jobs=jobs)
    until(lambda: client.list_periodic(app.engine), "the plan of the first run")
    looks = 0

    @event.listens_for(app.engine, "before_cursor_execute")
    def executing(*args: Any) -> None:
        nonlocal looks
        looks += "riverrun_periodic" in args[2] and "SKIP LOCKED" in args[2]

    try:
        began = time.monotonic()
        for _ in range(50):
            notify(app, "control", *[{"action": "run_periodic", "id": "hourly"}] * 5)
        app.client().run_periodic_now(app.engine, "hourly")
        came(ran, "the run by request")
        took_s = time.monotonic() - began
    finally:
        event.remove(app.engine, "before_cursor_execute", executing)
    assert looks <= 3 + took_s

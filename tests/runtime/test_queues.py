"""Queues of a running client: pause, resume, add and remove."""

import threading
from typing import Any

import pytest
from sqlalchemy.orm import Session

from riverrun import InsertOpts, JobCancelled, QueueConfig, QueuePaused, QueueResumed
from riverrun.errors import ClientNotReady, InvalidOption
from riverrun.events import JobEvent
from riverrun.verbs.queues import read_queues
from runtime.conftest import Task
from waiting import DEADLINE_S


@pytest.mark.parametrize("poll_only", [False, True])
def test_pause_by_one_client_reaches_another(app: Any, poll_only: bool) -> None:
    """A client claims nothing from a queue once it learns that another client paused it."""
    other = app.client()
    client = app.client(poll_only=poll_only, poll_interval=0.05)
    queue_events = client.subscribe(QueuePaused, QueueResumed)
    done = client.subscribe(JobEvent)
    client.start()
    other.queues.pause(app.engine, "default")
    assert queue_events.get(DEADLINE_S) == QueuePaused(queue="default")
    job = other.insert(app.engine, Task()).job
    client._launcher.wake("default")
    with pytest.raises(TimeoutError):
        queue_events.get(0.5)
    assert client.get(app.engine, job.id).state == "available"
    other.queues.resume(app.engine, "*")
    assert queue_events.get(DEADLINE_S) == QueueResumed(queue="default")
    ended = [done.get(DEADLINE_S)]
    assert ended[-1].job.id == job.id  # type: ignore[attr-defined]


def test_a_notified_pause_wins_over_a_read_that_began_before(app: Any) -> None:
    """A pause that arrives while the queue's row is being compared is not undone by the row."""
    client = app.client(poll_interval=0.05)
    client.start()
    services = client._services
    producers = services.producers
    pauses: list[threading.Thread] = []

    class Told(dict[str, float]):
        def get(self, *args: Any) -> Any:
            found = super().get(*args)
            if not pauses:
                pause = threading.Thread(
                    target=producers.pause, args=("default",), kwargs={"paused": True}
                )
                pauses.append(pause)
                pause.start()
                pause.join(0.5)
            return found

    producers._paused_at = Told()
    services.queue_reporter.run_once()
    pauses[0].join(DEADLINE_S)
    assert producers["default"].paused


def test_a_paused_queue_stays_paused_over_a_restart(app: Any) -> None:
    """A client that starts while its queue is paused claims nothing from it."""
    client, events = app.run()
    client.queues.pause(app.engine, "default")
    client.stop()
    client.insert(app.engine, Task())
    client.start()
    with pytest.raises(TimeoutError):
        events.get(0.5)
    client.queues.resume(app.engine, "default")
    assert events.get(DEADLINE_S).job.state == "completed"


def test_a_pause_takes_effect_when_its_transaction_commits(app: Any) -> None:
    """A pause in a session's transaction is announced at the commit, not before."""
    client = app.client()
    queue_events = client.subscribe(QueuePaused)
    client.start()
    with Session(app.engine) as session:
        client.queues.pause(session, "default")
        with pytest.raises(TimeoutError):
            queue_events.get(0.3)
        session.commit()
    assert queue_events.get(DEADLINE_S).queue == "default"


def test_queues_come_and_go_while_the_client_runs(app: Any) -> None:
    """An added queue is worked at once and a removed one no longer; other queues are unaffected."""
    client, events = app.run()
    to_mail = InsertOpts(queue="mail")
    client.insert(app.engine, Task(number=1), to_mail)
    client.queues.add("mail", QueueConfig(max_workers=1))
    assert events.get(DEADLINE_S).job.queue == "mail"
    assert list(client.queues) == ["default", "mail"]
    assert {row.name for row in client.queues.list(app.engine)} == {"default", "mail"}
    client.queues.remove("mail")
    left = client.insert(app.engine, Task(number=2), to_mail).job
    client.insert(app.engine, Task(number=3))
    assert events.get(DEADLINE_S).job.queue == "default"
    assert client.get(app.engine, left.id).state == "available"
    client.stop()
    client.queues.add("mail")
    client.start()
    assert events.get(DEADLINE_S).job.id == left.id


def test_refuses_queues_it_cannot_take(app: Any) -> None:
    """Adding a queue twice, removing an unknown one or a bad name is refused without effect."""
    client, _ = app.run()
    with pytest.raises(InvalidOption):
        client.queues.add("default")
    with pytest.raises(InvalidOption):
        client.queues.add("No Name")
    with pytest.raises(InvalidOption):
        client.queues.add("ok", "5")
    with pytest.raises(InvalidOption):
        client.queues.remove("stranger")
    with pytest.raises(InvalidOption):
        client.queues.remove(["default"])
    assert list(client.queues) == ["default"]
    services = client._services
    client.stop()
    with pytest.raises(ClientNotReady):
        services.add("late", QueueConfig())


def test_a_cancel_reaches_a_client_without_notifications(app: Any) -> None:
    """In poll-only mode a running job that another client cancels is cancelled by the next poll."""
    begun = threading.Event()

    def body(args: Task, ctx: Any) -> None:
        begun.set()
        assert ctx.wait(DEADLINE_S)
        ctx.raise_if_cancelled()

    _, events = app.run(body, poll_only=True, poll_interval=0.05)
    job = app.client().insert(app.engine, Task()).job
    assert begun.wait(DEADLINE_S)
    app.client().cancel(app.engine, job.id)
    assert type(events.get(10)) is JobCancelled


def test_a_notified_pause_wins_over_an_older_read(app: Any) -> None:
    """A read of the queues that began before a pause arrived does not undo the pause."""
    client = app.client()
    queue_events = client.subscribe(QueuePaused, QueueResumed)
    client.start()
    services = client._services
    began = client.config.clock.monotonic()
    stale = read_queues(app.engine, ["default"], schema=app.schema)
    client.queues.pause(app.engine, "default")
    assert queue_events.get(DEADLINE_S) == QueuePaused(queue="default")
    services.producers.follow(stale, began)
    with pytest.raises(TimeoutError):
        queue_events.get(0.2)
    services.producers.follow(stale, client.config.clock.monotonic() + 1)
    assert queue_events.get(DEADLINE_S) == QueueResumed(queue="default")

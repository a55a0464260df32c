"""Pauses, resumes and cancels by one side that the other side's clients obey."""

import json
import threading
import time
from collections.abc import Callable

from interop.clients import Clients, Echo
from interop.peers import StartPeer
from interop.rpc import Process
from riverrun import JobContext, QueueConfig, QueueEvent, QueuePaused, QueueResumed
from waiting import DEADLINE_S

# Longer than any test, so whatever is noticed sooner was caused by a notification.
NO_POLLING_S = 600.0
TRIES = 3


def fastest(turns: list[float]) -> float:
    """Return the seconds of the fastest try, since a busy machine is not what is measured."""
    return min(turns)


def timed(what: Callable[[], object], seen: Callable[[], object], here: Clients) -> float:
    """Call `what`, wait until `seen` is true, and return the seconds in between."""
    begun = time.monotonic()
    what()
    here.wait(seen, "the other side has seen it")
    return time.monotonic() - begun


def test_a_pause_by_go_reaches_python(go_peer: StartPeer, here: Clients) -> None:
    """Python stops working a queue within a second after Go pauses it, until Go resumes it."""
    peer = go_peer()
    queues = {"default": QueueConfig(poll_interval=NO_POLLING_S), "free": QueueConfig()}
    client = here.run(queues=queues)
    here.wait(lambda: peer.call("queue_list")["queues"], "queues")
    events = client.subscribe(QueueEvent)
    pauses, resumes = [], []
    for name in ("default", "default", "*"):
        begun = time.monotonic()
        peer.call("queue_pause", name=name)
        event = events.get(DEADLINE_S)
        assert isinstance(event, QueuePaused)
        pauses.append(time.monotonic() - begun)
        if name == "*":
            events.get(DEADLINE_S)
        job = peer.call("insert")
        assert peer.call("queue_get", name="default")["paused_at"]
        begun = time.monotonic()
        peer.call("queue_resume", name=name)
        event = events.get(DEADLINE_S)
        assert isinstance(event, QueueResumed)
        resumes.append(time.monotonic() - begun)
        if name == "*":
            events.get(DEADLINE_S)
        here.wait_state(job["id"], "completed")
        row = client.get(here.engine, job["id"])
        # Not before the resume, whose time Go's statement recorded.
        assert row.attempted_at is not None
        updated = client.queues.get(here.engine, "default").updated_at
        assert row.attempted_at >= updated
    assert fastest(pauses) < 1
    assert fastest(resumes) < 1


def test_a_pause_by_python_reaches_go(go_peer: StartPeer, here: Clients) -> None:
    """Go stops working a queue within a second after Python pauses it, until it is resumed."""
    peer, client = go_peer(), here.inserter()
    peer.call("start", client_id="gopher", fetch_poll_interval_ms=int(NO_POLLING_S * 1000))
    here.wait(lambda: client.queues.list(here.engine), "Go's queue")

    def events_seen(count: int) -> Callable[[], bool]:
        return lambda: len(queue_events(peer)) == count

    pauses, resumes = [], []
    for turn in range(TRIES):
        name = "*" if turn else "default"
        pause = timed(
            lambda n=name: client.queues.pause(here.engine, n), events_seen(2 * turn + 1), here
        )
        job = client.insert(here.engine, Echo()).job
        assert peer.call("queue_get", name="default")["paused_at"]
        resume = timed(
            lambda n=name: client.queues.resume(here.engine, n), events_seen(2 * turn + 2), here
        )
        pauses.append(pause)
        resumes.append(resume)
        assert queue_events(peer)[-2:] == ["queue_paused", "queue_resumed"]
        here.wait_state(job.id, "completed")
        row = client.get(here.engine, job.id)
        assert row.attempted_at is not None
        assert row.attempted_at >= client.queues.get(here.engine, "default").updated_at
    assert fastest(pauses) < 1
    assert fastest(resumes) < 1


def queue_events(peer: Process) -> list[str]:
    """Return the queue events that the Go client received."""
    events = peer.call("runtime_stats")["events"]
    return [event for event in events if event.startswith("queue_")]


def test_a_queues_metadata_is_shared(go_peer: StartPeer, here: Clients) -> None:
    """A queue that one side works is listed by the other, which can set its metadata."""
    peer = go_peer()
    client = here.run(queues={"mail": QueueConfig()})
    here.wait(lambda: peer.call("queue_list")["queues"], "queues")
    assert peer.call("queue_update", name="mail", metadata={"owner": "go"})["name"] == "mail"
    assert client.queues.get(here.engine, "mail").metadata == {"owner": "go"}
    client.queues.update(here.engine, "mail", metadata={"owner": "日本"})
    assert peer.call("queue_get", name="mail")["metadata"] == {"owner": "日本"}


def test_a_cancel_by_go_ends_what_python_runs(go_peer: StartPeer, here: Clients) -> None:
    """A job that Python runs is notified and cancelled within a second after Go cancels it."""
    begun, cancelled = threading.Event(), threading.Event()

    def work(args: Echo, ctx: JobContext) -> None:
        begun.set()
        ctx.wait(DEADLINE_S)
        cancelled.set()
        ctx.raise_if_cancelled()

    client = here.run(work, poll_interval=NO_POLLING_S)
    peer, turns = go_peer(), []
    for _ in range(TRIES):
        job = peer.call("insert")
        assert begun.wait(DEADLINE_S)
        turns.append(timed(lambda i=job["id"]: peer.call("cancel", id=i), cancelled.is_set, here))
        here.wait_state(job["id"], "cancelled")
        seen = peer.call("get", id=job["id"])
        assert seen["finalized_at"]
        assert seen["metadata"]["cancel_attempted_at"]
        assert [error["error"] for error in seen["errors"]] == [
            "JobCancelError: job cancelled remotely"
        ]
        begun.clear()
        cancelled.clear()
    assert fastest(turns) < 1
    assert client.running


def test_a_cancel_by_python_ends_what_go_runs(go_peer: StartPeer, here: Clients) -> None:
    """A job that Go runs is notified and cancelled within a second after Python cancels it."""
    peer, client = go_peer(), here.inserter()
    peer.call("start", client_id="gopher", fetch_poll_interval_ms=int(NO_POLLING_S * 1000))
    turns = []
    for turn in range(TRIES):
        job = client.insert(here.engine, Echo(behavior="cooperative_cancel")).job
        here.wait_state(job.id, "running")
        turns.append(
            timed(
                lambda i=job.id: client.cancel(here.engine, i),
                lambda n=turn + 1: peer.call("runtime_stats")["events"] == ["job_cancelled"] * n,
                here,
            )
        )
        row = client.get(here.engine, job.id)
        assert (row.state, len(row.errors)) == ("cancelled", 1)
        assert row.finalized_at is not None
    assert fastest(turns) < 1


def test_a_cancel_of_what_waits(go_peer: StartPeer, here: Clients) -> None:
    """Either side can cancel a waiting job, and the other can retry it."""
    peer, client = go_peer(), here.inserter()
    first = client.insert(here.engine, Echo()).job
    assert peer.call("cancel", id=first.id)["state"] == "cancelled"
    assert client.retry(here.engine, first.id).state == "available"
    second = peer.call("insert")
    assert client.cancel(here.engine, second["id"]).state == "cancelled"
    assert peer.call("retry", id=second["id"])["state"] == "available"
    assert client.delete(here.engine, second["id"]).id == second["id"]
    assert peer.call("delete", id=first.id)["id"] == first.id


def notify(here: Clients, topic: str, payload: dict[str, object]) -> None:
    """Send a notification without a row that confirms it."""
    here.do(
        "SELECT pg_notify(current_schema() || '.' || :topic, :payload)",
        topic=topic,
        payload=json.dumps(payload),
    )


def test_go_does_what_a_notification_says(go_peer: StartPeer, here: Clients) -> None:
    """River cancels, pauses and resigns on a notification alone, whatever the tables contain."""
    peer = go_peer()
    peer.call("start", client_id="gopher", fetch_poll_interval_ms=60_000)
    here.wait(lambda: peer.call("listener_count")["count"], "Go listens")
    here.wait(lambda: peer.call("leader")["leader_id"] == "gopher", "Go leads")
    job = peer.call("insert", behavior="cooperative_cancel")["id"]
    here.wait_state(job, "running")
    notify(here, "river_control", {"action": "cancel", "job_id": job, "queue": "default"})
    here.wait_state(job, "cancelled")
    assert "cancel_attempted_at" not in peer.call("get", id=job)["metadata"]
    notify(here, "river_control", {"action": "pause", "queue": "default"})
    here.wait(lambda: "queue_paused" in peer.call("runtime_stats")["events"], "Go paused")
    assert peer.call("queue_get", name="default")["paused_at"] is None
    term = peer.call("leader")["elected_at"]
    notify(here, "river_leadership", {"action": "request_resign", "leader_id": ""})
    here.wait(lambda: peer.call("leader")["elected_at"] not in {None, term}, "another term")


def test_a_notification_has_riverrun_look_at_the_row(here: Clients) -> None:
    """A notification of a cancel or pause that is not in the tables has no effect on riverrun."""
    begun: list[int] = []

    def wait(args: Echo, ctx: JobContext) -> None:
        begun.append(ctx.job.id)
        if args.behavior:
            ctx.wait(DEADLINE_S)
            ctx.raise_if_cancelled()

    client = here.run(wait)
    first, second = (client.insert(here.engine, Echo(behavior="wait")).job.id for _ in range(2))
    here.wait(lambda: {first, second} <= set(begun), "both at work")
    notify(here, "river_control", {"action": "cancel", "job_id": first, "queue": "default"})
    notify(here, "river_control", {"action": "pause", "queue": "default"})
    # Notifications are read in order, so the earlier ones were read before this cancel acted.
    client.cancel(here.engine, second)
    here.wait_state(second, "cancelled")
    here.wait_state(client.insert(here.engine, Echo()).job.id, "completed")
    assert client.get(here.engine, first).state == "running"

"""Jobs that a client claims ahead of a free slot stay available to other clients."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from riverrun import JobCompleted, JobContext, JobState
from riverrun.events import JobsClaimed
from riverrun.execution.threads import NEW
from riverrun.models import Job
from riverrun.runtime import producer
from waiting import DEADLINE_S, until

from .conftest import Task

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def states(app: Any) -> dict[int, str]:
    """Return the state of each job, by the number in its args."""
    with app.engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: app.schema})
        return {
            args["number"]: str(state)
            for args, state in connection.execute(select(Job.args, Job.state))
        }


class Held:
    """A worker that holds job 0 until `go_on` is set, and counts the calls for every job."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.calls: Counter[int] = Counter()

    def __call__(self, args: Task, ctx: JobContext) -> None:
        self.calls[args.number] += 1
        if args.number == 0:
            self.begun.set()
            assert self.go_on.wait(DEADLINE_S)


def holds_ahead(app: Any, jobs: int, **options: Any) -> tuple[Any, Any, Held]:
    """Return a client whose one slot holds job 0, its events, and the worker.

    The client has claimed all other jobs ahead.
    """
    held = Held()
    client = app.client(held, slots=1, **options)
    events = client.subscribe(JobCompleted)
    client.insert(app.engine, Task(0))
    client.start()
    assert held.begun.wait(DEADLINE_S)
    own = client._services.producers["default"]
    own._ahead.jobs = jobs  # as it would be after many short jobs
    client.insert_many(app.engine, [Task(n) for n in range(1, jobs + 1)])
    own.wake()
    return client, events, held


def test_what_waits_goes_to_another_client(app: Any) -> None:
    """Jobs claimed ahead of a slot that stays busy go at once to a client with a free slot."""
    _, _, held = holds_ahead(app, 5)
    other = Held()
    # A poll must not find the jobs: only the notification may.
    client = app.client(other, slots=1, poll_interval=60)
    client.start()
    until(lambda: list(states(app).values()).count("completed") == 5, "the other client's work")
    assert held.calls[0] == 1
    assert sum((held.calls + other.calls).values()) == 6
    held.go_on.set()


def test_short_and_long_jobs_are_shared_evenly(app: Any) -> None:
    """Of two clients with one slot each, neither keeps long jobs that the other could work."""

    def body(args: Task, _: JobContext) -> None:
        time.sleep(0.25 if args.number else 0)

    first, second = (app.client(body, slots=1) for _ in range(2))
    first.insert_many(app.engine, [Task(0)] * 200 + [Task(1)] * 16)
    for client in (first, second):
        client.start()
    until(lambda: set(_all_states(app)) == {"completed"}, "the end of all jobs")
    with app.engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: app.schema})
        shares = Counter(
            connection.execute(
                select(Job.attempted_by[1]).where(Job.args["number"].as_integer() == 1)
            ).scalars()
        )
    assert min(shares[each.id] for each in (first, second)) >= 6, shares


def _all_states(app: Any) -> list[str]:
    with app.engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: app.schema})
        return [str(state) for state in connection.execute(select(Job.state)).scalars()]


def test_claims_little_beyond_the_threads(app: Any) -> None:
    """While slots have no threads yet, a client claims a few jobs at a time, and fills them all."""
    go_on = threading.Event()

    def body(_: Task, __: JobContext) -> None:
        assert go_on.wait(DEADLINE_S)

    # No poll may fill the slots: only the threads that have begun may.
    client = app.client(body, slots=40, poll_interval=60)
    client.insert_many(app.engine, [Task(0)] * 60)
    counts: list[int] = []
    client.listen(lambda event: counts.append(event.count), JobsClaimed)
    client.start()
    try:
        until(lambda: sum(counts) == 40, "the claim of a job for each slot")
        # A claim may also get jobs for threads that are there and have not begun one yet.
        assert max(counts) <= 2 * NEW
        assert counts[0] <= NEW
    finally:
        go_on.set()
    until(lambda: set(_all_states(app)) == {"completed"}, "the end of all jobs")


def test_does_not_claim_ahead_again_at_once(app: Any) -> None:
    """After jobs were given back, a client claims no jobs ahead for a while."""
    client, _, held = holds_ahead(app, 3)
    own = client._services.producers["default"]
    until(lambda: own._ahead.wary_until > time.monotonic(), "the jobs' way back")
    assert own._ahead.jobs == 0
    until(lambda: set(states(app).values()) == {"available", "running"}, "the jobs' way back")
    held.go_on.set()
    until(lambda: set(states(app).values()) == {"completed"}, "the end of all jobs")
    assert held.calls == Counter({0: 1, 1: 1, 2: 1, 3: 1})


def test_a_pause_gives_back_what_waits(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs claimed ahead when their queue is paused are given back and do not begin."""
    monkeypatch.setattr(producer, "LATE_S", 1e9)
    client, _, held = holds_ahead(app, 3)
    until(lambda: list(states(app).values()).count("running") == 4, "the claim ahead")
    client.queues.pause(app.engine, "default")
    until(lambda: list(states(app).values()).count("available") == 3, "the jobs' way back")
    held.go_on.set()
    client.queues.resume(app.engine, "default")
    until(lambda: set(states(app).values()) == {"completed"}, "the end of all jobs")
    assert held.calls == Counter({0: 1, 1: 1, 2: 1, 3: 1})


def test_what_waits_is_under_the_heartbeat(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat renews the attempt time of jobs that wait for a slot, too."""
    monkeypatch.setattr(producer, "LATE_S", 1e9)
    _, _, held = holds_ahead(app, 1, rescue_after=1.0)

    def times() -> list[Any]:
        with app.engine.connect() as connection:
            connection = connection.execution_options(schema_translate_map={None: app.schema})
            query = select(Job.attempted_at).where(Job.state == JobState.running)
            return sorted(connection.execute(query.order_by(Job.id)).scalars())

    until(lambda: len(times()) == 2, "the claim ahead")
    before = times()
    until(lambda: all(new > old for new, old in zip(times(), before, strict=True)), "the touch")
    held.go_on.set()


@pytest.mark.parametrize("late", [True, False])
def test_begins_only_what_is_its_own(app: Any, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """A job that waited so long that it may have been rescued is given back and does not begin."""
    monkeypatch.setattr(producer, "LATE_S", 1e9)
    client, _, held = holds_ahead(app, 1)
    until(lambda: states(app)[1] == "running", "the claim ahead")
    if late:
        # The process was suspended, for example.
        def claimed() -> list[Any]:
            known = client._services.producers["default"]._claimed
            return [each for each in known.values() if each.claimed.args["number"] == 1]

        until(claimed, "the client knows of its claim")
        [waiting] = claimed()
        waiting.begin_by = time.monotonic() - 1
    with app.engine.begin() as connection:
        connection = connection.execution_options(schema_translate_map={None: app.schema})
        rescued = update(Job).where(Job.args["number"].as_integer() == 1)
        if late:
            connection.execute(rescued.values(state=JobState.retryable, scheduled_at=LATER))
    held.go_on.set()
    until(lambda: states(app)[0] == "completed", "the first job")
    if late:
        client.stop()
        assert (held.calls[1], states(app)[1]) == (0, "retryable")
    else:
        until(lambda: held.calls[1] == 1, "the second job")


def test_one_slow_claim_does_not_make_jobs_short(app: Any) -> None:
    """One slow claim does not start claiming ahead: the usual duration of claims decides."""
    client = app.client(Held(), slots=4)
    client.start()
    own = client._services.producers["default"]
    client.stop()
    own._ahead.claims_s.clear()

    def ahead(claim_s: float) -> int:
        own._ahead.recent_run_s.extend([0.01] * 4)
        own._ahead.adapt(4, 4, claim_s, mixed=False)
        return int(own._ahead.jobs)

    assert [ahead(0.002), ahead(0.002), ahead(0.05)] == [0, 0, 0]
    assert ahead(0.05) > 0


@pytest.mark.parametrize("ended", [0, 1, 15])
def test_an_idle_client_claims_the_next_jobs(app: Any, ended: int) -> None:
    """After many short jobs, which few threads worked, the next jobs are claimed, however few."""
    client = app.client(lambda args, ctx: None, slots=100)
    events = client.subscribe(JobCompleted)
    client.start()
    client.insert(app.engine, Task(0))
    events.get(DEADLINE_S)
    own = client._services.producers["default"]
    # As it is after a burst whose last jobs ended before a pause: most slots have no thread yet.
    own._ahead.jobs, own._ahead.soon = 200, ended
    assert own.executor.within_reach() + ended < own._ahead.worthwhile
    client.insert(app.engine, Task(1))
    events.get(DEADLINE_S)

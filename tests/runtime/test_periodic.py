"""What a running client promises about periodic jobs."""

import threading
from collections.abc import Callable

import pytest

from riverrun import Interval, PeriodicJob, Plugin, QueueConfig, UserActed
from riverrun.errors import InvalidOption, PeriodicJobNotFound
from riverrun.events import JobCompleted
from riverrun.verbs import list_actions
from waiting import DEADLINE_S, until

from .conftest import App, Task

Came = Callable[[threading.Event, str], None]


def test_a_client_works_what_recurs(app: App, came: Came) -> None:
    """Periodic jobs are inserted and worked, including those added while the client runs."""
    twice, added = threading.Event(), threading.Event()
    seen: list[int] = []

    def work(args: Task, _: object) -> None:
        seen.append(args.number)
        if seen.count(1) >= 2:
            twice.set()
        if args.number == 2:
            added.set()

    jobs = [PeriodicJob(Interval(0.2), lambda: Task(1), id="first")]
    client, _ = app.run(work, periodic_jobs=jobs)
    came(twice, "two runs of the first job")
    client.periodic_jobs.add(PeriodicJob(Interval(3600), lambda: Task(2), run_on_start=True))
    came(added, "the job added while the client runs")
    assert client.periodic_jobs.remove_by_id("first")


class Starts(Plugin):
    """Signals when a client begins to insert its periodic jobs."""

    def __init__(self) -> None:
        self.began = threading.Event()

    def periodic_jobs_start(self) -> None:
        self.began.set()
        raise RuntimeError("which must not keep the leader from it")


def test_a_client_may_leave_the_lead_to_others(app: App, came: Came) -> None:
    """A client with leader_election_disabled works a leader's periodic jobs but never leads."""
    disabled, eligible = Starts(), Starts()
    worker = app.client(leader_election_disabled=True, plugins=[disabled])
    events = worker.subscribe(JobCompleted)
    worker.start()
    jobs = [PeriodicJob(Interval(3600), Task, run_on_start=True)]
    leader = app.client(periodic_jobs=jobs, plugins=[eligible], queues={"none": QueueConfig()})
    leader.start()
    came(eligible.began, "the start of the leader's periodic jobs")
    assert events.get(DEADLINE_S).job.attempted_by == (worker.id,)
    assert leader.leads
    leader.stop()
    worker.insert(app.engine, Task())
    events.get(DEADLINE_S)
    assert not worker.leads
    assert not disabled.began.is_set()
    assert "riverrun.elector" not in {thread.name for thread in threading.enumerate()}


def test_who_never_leads_takes_no_periodic_jobs(app: App) -> None:
    """A client that never leads refuses periodic jobs: they would never be inserted."""
    job = PeriodicJob(Interval(3600), Task)
    with pytest.raises(InvalidOption, match="leader_election_disabled"):
        app.client(leader_election_disabled=True, periodic_jobs=[job])
    with pytest.raises(InvalidOption, match="leader_election_disabled"):
        app.client(leader_election_disabled=True).periodic_jobs.add(job)


def test_a_request_reaches_the_leader(app: App, came: Came) -> None:
    """A running leader inserts a job by request within a moment, without waiting for its look."""
    ran = threading.Event()
    jobs = [PeriodicJob(Interval(3600), Task, id="hourly")]
    client, _ = app.run(lambda *_: ran.set(), periodic_jobs=jobs)
    until(lambda: client.list_periodic(app.engine), "the plan of the first run")
    assert not ran.is_set()
    other = app.client()
    assert other.run_periodic_now(app.engine, "hourly").run_now_at is not None
    came(ran, "the run by request")
    until(lambda: other.list_periodic(app.engine)[0].run_now_at is None, "the end of the request")


def test_a_user_switches_a_periodic_job(app: App) -> None:
    """Pausing, resuming and running for a user is recorded, and is an event."""
    client = app.client(periodic_jobs=[PeriodicJob(Interval(3600), Task(), id="hourly")])
    client.start()
    until(lambda: client.list_periodic(app.engine), "the plan of the first run")
    seen = client.subscribe(UserActed)
    assert client.pause_periodic(app.engine, "hourly").paused_at is not None
    assert client.resume_periodic(app.engine, "hourly").paused_at is None
    for action in ("pause", "resume", "run"):
        client.act_on_periodic(app.engine, action, "hourly", user="ada")
        event = seen.get(DEADLINE_S)
        assert event == UserActed(user="ada", action=f"{action}_periodic", count=1)
    with pytest.raises(InvalidOption, match="action"):
        client.act_on_periodic(app.engine, "stop", "hourly", user="ada")
    with pytest.raises(PeriodicJobNotFound):
        client.act_on_periodic(app.engine, "pause", "none", user="ada")
    rows = list_actions(app.engine, schema=app.schema)
    assert [(each.action, each.user, each.filter) for each in rows] == [
        (f"{action}_periodic", "ada", {"periodic_id": "hourly"})
        for action in ("run", "resume", "pause")
    ]

"""What a running client promises about periodic jobs."""

import threading
from collections.abc import Callable

import pytest

from riverrun import Interval, PeriodicJob, Plugin, QueueConfig
from riverrun.errors import InvalidOption
from riverrun.events import JobCompleted
from waiting import DEADLINE_S

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

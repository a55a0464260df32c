"""What a working client promises of periodic jobs."""

import threading
from collections.abc import Callable

from riverrun import Interval, PeriodicJob

from .conftest import Bench, Task

Came = Callable[[threading.Event, str], None]


def test_a_client_works_what_recurs(bench: Bench, came: Came) -> None:
    """Periodic jobs run while the client does, also those added meanwhile."""
    twice, added = threading.Event(), threading.Event()
    seen: list[int] = []

    def work(args: Task, _: object) -> None:
        seen.append(args.number)
        if seen.count(1) >= 2:
            twice.set()
        if args.number == 2:
            added.set()

    jobs = [PeriodicJob(Interval(0.2), lambda: Task(1), id="first")]
    client, _ = bench.run(work, periodic_jobs=jobs)
    came(twice, "two runs of the first job")
    client.periodic_jobs.add(PeriodicJob(Interval(3600), lambda: Task(2), run_on_start=True))
    came(added, "the job added while the client runs")
    assert client.periodic_jobs.remove_by_id("first")

"""River's performance and soak scenarios in a small form: same invariants, loose bounds."""

import time
from typing import Any

import pytest

from interop.conformance.fleet import BOTH, Fleet, running
from interop.conformance.registry import differs, passed
from interop.rpc import Process
from waiting import until

# How many times longer than Go a run may take: riverrun is Python, and uses SQLAlchemy. Only a
# mistake exceeds this, such as another round trip for each job; benchmarks measure the rest.
# only a mistake would pass, such as a round trip more for each job; benchmarks measure the rest.
SLOWER = 40
COMPLETED = "SELECT count(*) FROM river_job WHERE state = 'completed'"
each_side = pytest.mark.parametrize("name", BOTH)


def fill(process: Process, count: int, **job: Any) -> list[int]:
    """Insert many jobs and return their ids."""
    answer = process.call("insert_many", jobs=[job] * count)
    return [result["job"]["id"] for result in answer["results"]]


def connections(process: Process) -> int:
    """Return the number of a process's connections."""
    return int(process.call("connection_count")["count"])


@passed("far fewer transactions than completed jobs", form="200 jobs, not 1,000")
@each_side
def test_completion_batching(fleet: Fleet, name: str) -> None:
    """Jobs that finish together are completed together: in far fewer transactions than jobs."""
    process = fleet.side(name)
    process.call("start", client_id="batches", max_workers=200)
    process.call("barrier_create", name="together")
    jobs = fill(process, 200, behavior="barrier_wait", message="together")
    for job in jobs:
        running(process, job)
    process.call("barrier_release", name="together")
    until(lambda: fleet.one(COMPLETED) == len(jobs), "all completed")
    # xmin is the transaction that last wrote a row. River requires fewer than 250 for 1,000 jobs.
    assert fleet.one("SELECT count(DISTINCT xmin::text) FROM river_job") < len(jobs) / 4


@passed("600 jobs and 100 workers a process on few connections")
@each_side
def test_pool_pressure_completion(fleet: Fleet, name: str) -> None:
    """With many more workers than connections, all jobs complete within the connection limit."""
    process = fleet.side(name)
    process.call("start", client_id="presses", max_workers=100)
    fill(process, 600)
    most = 0
    while fleet.one(COMPLETED) < 600:
        most = max(most, connections(process))
    assert most <= 20
    assert fleet.one("SELECT max(attempt) FROM river_job") == 1


@passed("at most 20 connections a process", form="400 jobs, not 10 minutes")
def test_mixed_connection_pool_bound(fleet: Fleet) -> None:
    """When both sides work at once, each keeps within its connection limit."""
    bounded(fleet, [fleet.go, fleet.python])


@passed(
    "at most 20 connections a process",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_resource_bound(fleet: Fleet) -> None:
    """When two processes of each side work at once, each keeps within its connection limit."""
    bounded(fleet, [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")])


def bounded(fleet: Fleet, processes: list[Process]) -> None:
    """Check that processes at work have no more connections than allowed."""
    for number, process in enumerate(processes):
        process.call("start", client_id=f"bounded-{number}", max_workers=20)
    for process in processes:
        fill(process, 200)
    most = 0
    while fleet.one(COMPLETED) < 200 * len(processes):
        most = max(most, *map(connections, processes))
    assert most <= 20


@passed("no job is lost or worked twice", form="4 s, not 10 minutes")
def test_mixed_soak(fleet: Fleet) -> None:
    """Both sides insert, work, cancel and pause for a while; every job becomes final, once."""
    soaks(fleet, [fleet.go, fleet.python])


@passed(
    "as mixed_soak",
    form="two processes of each side; River asks for two implementations beside its own; 4 s",
)
def test_multi_engine_soak(fleet: Fleet) -> None:
    """Two processes of each side insert, work, cancel and pause; every job becomes final."""
    soaks(fleet, [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")])


def soaks(fleet: Fleet, processes: list[Process]) -> None:
    """Check that nothing is lost or done twice while all processes use every operation."""
    for number, process in enumerate(processes):
        process.call("start", client_id=f"soaks-{number}", retry_delay_ms=5)
    end = time.monotonic() + 4
    turn, outputs, cancelled = 0, [], []
    while time.monotonic() < end:
        process = processes[turn % len(processes)]
        other = processes[(turn + 1) % len(processes)]
        outputs += fill(process, 10, behavior="output", message="soak")
        long = other.call("insert", behavior="cooperative_cancel")["id"]
        process.call("insert", behavior="resumable", opts={"max_attempts": 2})
        process.call("insert", behavior="snooze_once", duration_ms=5)
        if turn % 5 == 4:
            other.call("queue_pause", name="*")
            process.call("queue_resume", name="*")
        process.call("cancel", id=long)
        cancelled.append(long)
        turn += 1
    left = "SELECT count(*) FROM river_job WHERE finalized_at IS NULL"
    until(lambda: fleet.one(left) == 0, "every job ended")
    states = "SELECT DISTINCT state::text FROM river_job WHERE id = ANY(:ids)"
    assert [row.state for row in fleet.rows(states, ids=cancelled)] == ["cancelled"]
    assert [row.state for row in fleet.rows(states, ids=outputs)] == ["completed"]
    assert fleet.one("SELECT max(attempt) FROM river_job WHERE id = ANY(:ids)", ids=outputs) == 1
    assert max(map(connections, processes)) <= 20


def enqueue_ns(process: Process) -> int:
    """Return how many nanoseconds 200 inserts take, one after the other."""
    return int(process.call("benchmark_enqueue", jobs=200)["duration_ns"])


def work_s(fleet: Fleet, inserter: Process, workers: list[Process], jobs: int = 500) -> float:
    """Return how many seconds processes take for jobs that exist when they start."""
    fleet.python.call("reset")
    fill(inserter, jobs)
    begun = time.monotonic()
    for number, worker in enumerate(workers):
        worker.call("start", client_id=f"fast-{number}", max_workers=20)
    until(lambda: fleet.one(COMPLETED) == jobs, "all jobs")
    took = time.monotonic() - begun
    for worker in workers:
        worker.call("stop")
    return took


@differs(
    "inserts one by one",
    river="throughput and latency (95th percentile) within bounds that the implementation declares",
    riverrun="the whole takes no more than 40 times what River takes",
    because="a bound that only a mistake breaks; benchmarks/ measures the rest",
)
def test_release_enqueue_performance(fleet: Fleet) -> None:
    """Single inserts take no longer than a bounded multiple of Go's."""
    go, python = (min(enqueue_ns(fleet.side(name)) for _ in range(2)) for name in BOTH)
    assert python < SLOWER * max(go, 100_000_000)


@differs(
    "one side works a queue",
    river="throughput and latency (95th percentile) within bounds that the implementation declares",
    riverrun="the whole takes no more than 40 times what River takes",
    because="a bound that only a mistake breaks; benchmarks/ measures the rest",
)
def test_release_worker_performance(fleet: Fleet) -> None:
    """Working jobs takes no longer than a bounded multiple of Go's time."""
    go, python = (work_s(fleet, fleet.go, [fleet.side(name)]) for name in BOTH)
    assert python < SLOWER * max(go, 0.1)


@differs(
    "both sides work one queue",
    river="throughput and latency (95th percentile) within bounds that the implementation declares",
    riverrun="the whole takes no more than 40 times what River takes",
    because="a bound that only a mistake breaks; benchmarks/ measures the rest",
)
def test_release_mixed_performance(fleet: Fleet) -> None:
    """Both sides on one queue take no longer than a bounded multiple of Go's time alone."""
    alone = work_s(fleet, fleet.go, [fleet.go])
    assert work_s(fleet, fleet.python, [fleet.go, fleet.python]) < SLOWER * max(alone, 0.1)


@differs(
    "four processes work one queue",
    river="throughput and latency (95th percentile) within bounds that the implementation declares",
    riverrun="the whole takes no more than 40 times what River takes",
    because="a bound that only a mistake breaks; benchmarks/ measures the rest",
)
def test_multi_engine_release_performance(fleet: Fleet) -> None:
    """Four processes on one queue take no longer than a bounded multiple of Go's time alone."""
    alone = work_s(fleet, fleet.go, [fleet.go])
    processes = [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")]
    assert work_s(fleet, fleet.go, processes) < SLOWER * max(alone, 0.1)

"""How fast do few slots, and several processes, work waiting jobs?

`versus_river` has the drain by one tuned process.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

from sqlalchemy import Engine, text

from benchmarks.harness import (
    Comparison,
    drained,
    fill,
    in_turns,
    profiled,
    raw_drain,
    schema,
    settings_for,
    settle,
)
from riverrun.bench.run import crew_of
from riverrun.bench.settings import TUNED_AHEAD, TUNED_GC_THRESHOLD, TUNED_SLOTS
from riverrun.config import QueueConfig

DEADLINE_S = 300.0
FEW = "riverrun, defaults, 5 slots"


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Drain 50,000 no-op jobs by each side, in turns."""
    jobs, rounds = (2_000, 1) if small else (50_000, 5)
    sides = {
        "raw loop, 100 at a time": lambda: raw(engine, jobs, 100),
        FEW: lambda: ours(engine, jobs, slots=5),
    }
    few = Comparison(
        question=f"drain of {jobs:,} no-op jobs by few slots",
        unit="jobs/s",
        samples=in_turns(sides, rounds),
        targets={FEW: 0.4},
        settings={"max_workers": 5, "claim_ahead": QueueConfig().claim_ahead},
    )
    together = {
        f"riverrun, {count} process{'es' if count > 1 else ''}": (
            lambda count=count: tuned(engine, jobs, processes=count)  # type: ignore[misc]
        )
        for count in ((1, 2) if small else (1, 2, 4))
    }
    many = Comparison(
        question=f"drain of {jobs:,} no-op jobs by processes on one queue",
        unit="jobs/s",
        samples=in_turns(together, rounds),
        targets=dict.fromkeys(list(together)[1:], 0.95),
        settings={
            "max_workers": TUNED_SLOTS,
            "claim_ahead": TUNED_AHEAD,
            "gc_threshold": TUNED_GC_THRESHOLD,
        },
    )
    return [profiled(few, sides), profiled(many, together)]


@contextlib.contextmanager
def waiting(engine: Engine, jobs: int) -> Iterator[str]:
    """Yield the name of a schema in which `jobs` no-op jobs wait."""
    with schema(engine) as name:
        fill(engine, jobs)
        settle(engine)
        yield name


def raw(engine: Engine, jobs: int, batch: int) -> float:
    """Return the jobs per second of a loop that only claims and completes."""
    with waiting(engine, jobs):
        raw_drain(engine, batch)
        return drained(engine, jobs)


def ours(
    engine: Engine,
    jobs: int,
    *,
    slots: int,
    ahead: int = QueueConfig().claim_ahead,
    gc_threshold: int | None = None,
    processes: int = 1,
) -> float:
    """Return the jobs per second of riverrun."""
    with waiting(engine, jobs) as name:
        settings = settings_for(engine, name, slots=slots, ahead=ahead, gc_threshold=gc_threshold)
        # In other processes, as in production: objects of this one must not slow them down.
        with crew_of(settings, processes, elsewhere=True) as crew:
            wait(engine, name)
        assert crew.worked == jobs, f"{crew.worked} worked of {jobs}"
        return drained(engine, jobs)


def tuned(engine: Engine, jobs: int, *, processes: int = 1) -> float:
    """Return the jobs per second of riverrun with settings for throughput."""
    return ours(
        engine,
        jobs,
        slots=TUNED_SLOTS,
        ahead=TUNED_AHEAD,
        gc_threshold=TUNED_GC_THRESHOLD,
        processes=processes,
    )


def deleting(engine: Engine, jobs: int) -> float:
    """Return the jobs per second of a tuned riverrun that deletes completed jobs at once.

    No row is left to read the times from. So this measures from the client's start to the last job.
    """
    with waiting(engine, jobs) as name:
        settings = settings_for(
            engine,
            name,
            slots=TUNED_SLOTS,
            ahead=TUNED_AHEAD,
            gc_threshold=TUNED_GC_THRESHOLD,
            deletes=True,
        )
        with crew_of(settings, 1, elsewhere=True) as crew:
            began = time.perf_counter()
            wait(engine, name, pause_s=0.01)
            took_s = time.perf_counter() - began
        assert crew.worked == jobs, f"{crew.worked} worked of {jobs}"
        return jobs / took_s


def wait(engine: Engine, name: str, *, pause_s: float = 0.2) -> None:
    """Wait until no job waits or runs.

    Raises:
        TimeoutError: If jobs are left after five minutes; the worker is probably dead.
    """
    statement = text(
        f"SELECT EXISTS (SELECT 1 FROM {name}.river_job WHERE state = 'available') "
        f"OR EXISTS (SELECT 1 FROM {name}.river_job WHERE state = 'running')"
    )
    pause = threading.Event()
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with engine.connect() as connection:
            if not connection.execute(statement).scalar_one():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"jobs still wait or run after {DEADLINE_S:g} s")
        pause.wait(pause_s)

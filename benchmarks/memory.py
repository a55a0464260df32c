"""How much memory does a worker process use, and does it grow?"""

import threading
from pathlib import Path

from sqlalchemy import Engine

from benchmarks.drain import wait
from benchmarks.harness import Comparison, Target, drained, fill, schema, settings_for
from riverrun.bench.run import Elsewhere, crew_of
from riverrun.config import QueueConfig

SLOTS = 100


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Measure a worker process with 100 slots at its start, and after each lot of jobs."""
    lot, lots, rounds = (1_000, 2, 1) if small else (100_000, 5, 5)
    start = "riverrun, at start"
    after = [f"riverrun, after {lot * (number + 1):,} jobs" for number in range(lots)]
    samples: dict[str, list[float]] = {side: [] for side in (start, *after)}
    for _ in range(rounds):
        with schema(engine) as name:
            settings = settings_for(engine, name, slots=SLOTS)
            with crew_of(settings, 1, elsewhere=True) as crew:
                assert isinstance(crew, Elsewhere)
                (pid,) = crew.pids()
                threading.Event().wait(1 if small else 3)  # Until all its parts have started.
                samples[start].append(resident(pid))
                for side in after:
                    fill(engine, lot)
                    wait(engine, name)
                    samples[side].append(resident(pid))
            assert crew.worked == lot * lots
            drained(engine, lot * lots)
    return [
        Comparison(
            question=f"resident memory of a worker with {SLOTS} slots",
            unit="MB",
            samples=samples,
            targets=[
                Target(start, 120, percentile=50),
                Target(after[-1], 1.05),
                Target(after[-1], 1.05, after[0]),
            ],
            less=True,
            settings={"max_workers": SLOTS, "claim_ahead": QueueConfig().claim_ahead},
            notes=[
                f"The same process at each step; the jobs come in lots of {lot:,}.",
                "From start to the first lot: the slots' threads, and the rows claimed ahead.",
            ],
        )
    ]


def resident(pid: int) -> float:
    """Return the resident memory of a process, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"no VmRSS in /proc/{pid}/status")

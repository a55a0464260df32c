"""How much memory does a worker take, and does it stay so?"""

import threading
from pathlib import Path

from sqlalchemy import Engine

from benchmarks.drain import wait
from benchmarks.harness import Comparison, Target, drained, fill, schema, settle
from riverrun.bench.run import Elsewhere, crew_of
from riverrun.bench.settings import Settings
from riverrun.options import QueueConfig

SLOTS = 100


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Start a worker of 100 slots, and have it work 500,000 jobs."""
    jobs, rounds = (2_000, 1) if small else (500_000, 5)
    start: list[float] = []
    tenth: list[float] = []
    end: list[float] = []
    for _ in range(rounds):
        with schema(engine) as name:
            settings = Settings(
                url=engine.url.render_as_string(hide_password=False),
                schema=name,
                queue="default",
                max_workers=SLOTS,
                claim_ahead=QueueConfig().claim_ahead,
            )
            with crew_of(settings, 1, elsewhere=True) as crew:
                assert isinstance(crew, Elsewhere)
                (pid,) = crew.pids()
                threading.Event().wait(1 if small else 3)
                start.append(resident(pid))
                for count, samples in ((jobs // 10, tenth), (jobs - jobs // 10, end)):
                    fill(engine, count)
                    settle(engine)
                    wait(engine, name)
                    samples.append(resident(pid))
            assert crew.worked == jobs
            drained(engine, jobs)
    worked = f"riverrun, after {jobs:,} jobs"
    return [
        Comparison(
            question=f"resident memory of a worker with {SLOTS} slots",
            unit="MB",
            samples={
                "riverrun, at start": start,
                f"riverrun, after {jobs // 10:,} jobs": tenth,
                worked: end,
            },
            targets=[
                Target("riverrun, at start", 120, percentile=50),
                Target(worked, 1.05),
            ],
            less=True,
            settings={"max_workers": SLOTS, "claim_ahead": QueueConfig().claim_ahead},
            notes=["The jobs come in two lots, the first a tenth of them."],
        )
    ]


def resident(pid: int) -> float:
    """Return the megabytes of memory that a process has in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"no VmRSS in /proc/{pid}/status")

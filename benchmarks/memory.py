"""How much memory do processes use that work and insert jobs, and does it grow?"""

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from benchmarks.drain import wait
from benchmarks.harness import SCHEMA, Comparison, Target, drained, fill, schema, settings_for
from riverrun import Client
from riverrun.bench.run import Elsewhere, crew_of
from riverrun.bench.work import NoOp
from riverrun.config import QueueConfig

SLOTS = 100
DEADLINE_S = 60.0

THREADS = 8
"""Threads of the process that inserts, as of a web server."""


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Measure processes that work, that have many slots, and that insert."""
    return [
        working(engine, small=small),
        by_slot(engine, small=small),
        inserting(engine, small=small),
    ]


def working(engine: Engine, *, small: bool) -> Comparison:
    """Measure a worker process with 100 slots at its start, and after each lot of jobs."""
    lot, lots, rounds = (1_000, 2, 1) if small else (100_000, 5, 3)
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
    return Comparison(
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


def by_slot(engine: Engine, *, small: bool) -> Comparison:
    """Measure what one more slot takes, by processes whose slots all run a job."""
    more, rounds = (50, 1) if small else (1_000, 3)
    side = f"of {more:,} more slots, each"
    samples: list[float] = []
    for _ in range(rounds):
        few, many = (in_use(engine, slots) for slots in (1, 1 + more))
        samples.append((many - few) * 1e3 / more)
    return Comparison(
        question="resident memory of a slot that runs a job",
        unit="kB",
        samples={side: samples},
        targets=[Target(side, 60, percentile=50)],
        less=True,
        notes=["A slot is a thread, whose stack takes most of this."],
    )


def in_use(engine: Engine, slots: int) -> float:
    """Return the resident memory, in megabytes, of a process with `slots` jobs that run."""
    with schema(engine) as name:
        with engine.begin() as connection:
            connection.execute(
                text(
                    f"INSERT INTO {SCHEMA}.river_job (args, kind, max_attempts) SELECT "
                    "'{\"ms\": 3000}', 'riverrun_bench_nap', 25 FROM generate_series(1, :slots)"
                ),
                {"slots": slots},
            )
        settings = settings_for(engine, name, slots=slots)
        with crew_of(settings, 1, elsewhere=True) as crew:
            assert isinstance(crew, Elsewhere)
            (pid,) = crew.pids()
            began = time.monotonic()
            while threads(pid) < slots:
                assert time.monotonic() < began + DEADLINE_S, f"{threads(pid)} threads of {slots}"
                threading.Event().wait(0.05)
            threading.Event().wait(1)
            used = resident(pid)
            wait(engine, name)
    return used


def inserting(engine: Engine, *, small: bool) -> Comparison:
    """Measure a process that inserts jobs in separate transactions, as a web application."""
    lot, lots, rounds = (200, 2, 1) if small else (20_000, 10, 1)
    sides = [f"after {lot * (number + 1):,} inserts" for number in range(lots)]
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        with schema(engine):
            here, there = multiprocessing.Pipe()
            url = engine.url.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
            address = url.render_as_string(hide_password=False)
            process = multiprocessing.get_context("spawn").Process(
                target=insert_lots, args=(there, address, lot, lots)
            )
            process.start()
            for side in sides:
                samples[side].append(here.recv())
            process.join()
    return Comparison(
        question="resident memory of a process that inserts, each job in its own transaction",
        unit="MB",
        samples=samples,
        targets=[Target(sides[-1], 1.02)],
        less=True,
        settings={"threads": THREADS},
    )


def insert_lots(pipe: Pipe, url: str, lot: int, lots: int) -> None:
    """Insert lots of jobs, and send this process's resident memory after each."""
    engine = create_engine(url, pool_size=THREADS)
    client = Client(engine)

    def insert(count: int) -> None:
        for number in range(count):
            with Session(engine) as session:
                client.insert(session, NoOp(number))
                session.commit()

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(lots):
            list(pool.map(insert, [lot // THREADS] * THREADS))
            pipe.send(resident(os.getpid()))
    client.flush_announcements()
    engine.dispose()


def threads(pid: int) -> int:
    """Return the number of threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def resident(pid: int) -> float:
    """Return the resident memory of a process, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"no VmRSS in /proc/{pid}/status")

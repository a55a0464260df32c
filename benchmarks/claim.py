"""Does a claim take longer when more jobs wait, or more have been worked?"""

import statistics
import time

from sqlalchemy import Engine

from benchmarks.harness import Comparison, fill, schema, settle
from riverrun.verbs import claim

LIMIT = 100
FEW = 1_000


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Claim 100 of more and more waiting jobs, and beside more and more finished ones."""
    return [by_waiting(engine, small=small), by_finished(engine, small=small)]


def by_waiting(engine: Engine, *, small: bool) -> Comparison:
    """Claim 100 of more and more waiting jobs, with many finished ones in the table."""
    sizes = [FEW, 5_000] if small else [FEW, 100_000, 1_000_000]
    finished = 5_000 if small else 1_000_000
    samples: dict[str, list[float]] = {}
    with schema(engine) as name:
        fill(engine, finished, state="completed")
        waiting = 0
        for size in sizes:
            fill(engine, size - waiting)
            waiting = size
            settle(engine)
            samples[f"{size:,} waiting"] = claims(engine, name, small=small)
    first = next(iter(samples))
    assert statistics.median(samples[first]) > 0
    return Comparison(
        question=f"claim of {LIMIT}, {finished:,} finished",
        unit="ms",
        samples=samples,
        targets={side: 1.5 for side in samples if side != first},
        less=True,
    )


def by_finished(engine: Engine, *, small: bool) -> Comparison:
    """Claim 100 of 1,000 waiting jobs, beside no finished ones and beside many."""
    lots, lot = (2, 5_000) if small else (10, 1_000_000)
    none, many = "none finished", f"{lots * lot:,} finished"
    with schema(engine) as name:
        fill(engine, FEW)
        settle(engine)
        samples = {none: claims(engine, name, small=small)}
        for _ in range(lots):
            fill(engine, lot, state="completed")
        # Not settled: the claims are made while autovacuum does what it does.
        samples[many] = claims(engine, name, small=small)
    return Comparison(
        question=f"claim of {LIMIT}, {FEW:,} waiting",
        unit="ms",
        samples=samples,
        targets={many: 1.2},
        less=True,
    )


def claims(engine: Engine, name: str, *, small: bool) -> list[float]:
    """Return the milliseconds of claims that are rolled back: each sees the same table."""
    taken = []
    with engine.connect() as connection:
        for _ in range(3 if small else 40):
            began = time.perf_counter()
            jobs = claim(connection, limit=LIMIT, client_id="benchmark", schema=name)
            taken.append((time.perf_counter() - began) * 1e3)
            assert len(jobs) == LIMIT
            connection.rollback()
    return taken[1:]  # the first one compiles

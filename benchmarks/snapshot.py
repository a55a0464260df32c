"""How much slower are claims while a transaction stays open, such as a forgotten psql or a backup?

While its snapshot is held, dead rows cannot be vacuumed, so a claim of the whole queue must skip
the dead index entries of all jobs that were worked meanwhile.
"""

import time

from sqlalchemy import Engine

from benchmarks.harness import Comparison, Target, fill, raw_drain, schema, settle
from riverrun.db.statement_timeout import SINGLE
from riverrun.runtime.bounds import ClaimBounds
from riverrun.verbs.claim import claim_jobs


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Claim 100 jobs before, during and after the time that a snapshot is held."""
    lots = (2_000,) if small else (100_000, 900_000)
    samples: dict[str, list[float]] = {}
    held = engine.execution_options(isolation_level="REPEATABLE READ")
    bounds = ClaimBounds()
    targets = []
    with schema(engine) as name:
        samples["before"] = claims(engine, name, bounds, small=small)
        worked = 0
        with held.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            for lot in lots:
                fill(engine, lot)
                raw_drain(engine, 1_000)
                worked += lot
                side = f"held while {worked:,} were worked"
                samples[side] = claims(engine, name, bounds, small=small)
                targets.append(Target(side, 1.5))
        settle(engine)
        after = "ended, and vacuumed"
        samples[after] = claims(engine, name, ClaimBounds(), small=small)
    return [
        Comparison(
            question="claim of 100 while a snapshot is held",
            unit="ms",
            samples=samples,
            targets=[*targets, Target(after, 1.5)],
            less=True,
            notes=[
                "5,000 jobs wait each time; autovacuum is as the server has it.",
                "Claims have a producer's bounds; the longest are looks at the whole queue.",
            ],
        )
    ]


def claims(engine: Engine, name: str, bounds: ClaimBounds, *, small: bool) -> list[float]:
    """Return the milliseconds of each of some claims."""
    count = 4 if small else 46
    fill(engine, 100 * (count + 4))
    single = engine.execution_options(**{SINGLE: True})
    taken = []
    for _ in range(count):
        began = time.monotonic()
        beyond = bounds.at(began)
        jobs = claim_jobs(
            single, "default", limit=100, client_id="benchmark", beyond=beyond, schema=name
        )
        ended = time.monotonic()
        bounds.claimed(beyond, jobs, asked=100, began=began, ended=ended)
        taken.append((ended - began) * 1e3)
        assert len(jobs) == 100
    return taken[1:]  # The first one compiles.

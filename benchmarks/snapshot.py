"""How much slower are claims while a transaction stays open, such as a forgotten psql or a backup?

While its snapshot is held, dead rows cannot be vacuumed, so a claim must skip the dead index
entries of all jobs that were worked meanwhile.
"""

import time

from sqlalchemy import Engine

from benchmarks.harness import Comparison, Target, fill, raw_drain, schema, settle
from riverrun.verbs import claim


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Claim 100 jobs before, during and after the time that a snapshot is held."""
    lots = (2_000,) if small else (20_000, 80_000)
    samples: dict[str, list[float]] = {}
    held = engine.execution_options(isolation_level="REPEATABLE READ")
    with schema(engine) as name:
        fill(engine, 1_000)
        settle(engine)
        before = "before"
        samples[before] = claims(engine, name, small=small)
        worked = 0
        with held.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            for lot in lots:
                fill(engine, lot)
                raw_drain(engine, 1_000)
                worked += lot + (0 if worked else 1_000)
                fill(engine, 1_000)
                samples[f"held while {worked:,} were worked"] = claims(engine, name, small=small)
        settle(engine)
        after = "ended, and vacuumed"
        samples[after] = claims(engine, name, small=small)
    return [
        Comparison(
            question="claim of 100 while a snapshot is held",
            unit="ms",
            samples=samples,
            targets=[Target(after, 1.5)],
            less=True,
            notes=["1,000 jobs wait each time; autovacuum is as the server has it."],
        )
    ]


def claims(engine: Engine, name: str, *, small: bool) -> list[float]:
    """Return the milliseconds of each of some claims, which are all rolled back."""
    taken = []
    with engine.connect() as connection:
        for _ in range(4 if small else 41):
            began = time.perf_counter()
            jobs = claim(connection, limit=100, client_id="benchmark", schema=name)
            taken.append((time.perf_counter() - began) * 1e3)
            assert len(jobs) == 100
            connection.rollback()
    return taken[1:]  # The first one compiles.

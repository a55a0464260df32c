"""Does a claim take longer when more jobs wait, or more have been worked?"""

import statistics
import time

from sqlalchemy import Engine

from benchmarks.harness import Comparison, fill, schema, settle
from riverrun.verbs import claim


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Claim 100 of more and more waiting jobs, with many finished ones in the table."""
    sizes = [1_000, 5_000] if small else [1_000, 100_000, 1_000_000]
    finished = 5_000 if small else 1_000_000
    samples: dict[str, list[float]] = {}
    with schema(engine) as name:
        fill(engine, finished, state="completed")
        waiting = 0
        for size in sizes:
            fill(engine, size - waiting)
            waiting = size
            settle(engine)
            taken = []
            with engine.connect() as connection:
                for _ in range(3 if small else 40):
                    began = time.perf_counter()
                    jobs = claim(connection, limit=100, client_id="benchmark", schema=name)
                    taken.append((time.perf_counter() - began) * 1e3)
                    assert len(jobs) == 100
                    # Roll back, so that each claim sees the same table. The first one compiles.
                    connection.rollback()
            samples[f"{size:,} waiting"] = taken[1:]
    first = next(iter(samples))
    assert statistics.median(samples[first]) > 0
    return [
        Comparison(
            question=f"claim of 100, {finished:,} finished",
            unit="ms",
            samples=samples,
            targets={side: 1.5 for side in samples if side != first},
            less=True,
        )
    ]

"""How long does it take from a short job's claim to its visible completion, beside River (Go)?"""

from collections.abc import Callable

import attrs
from sqlalchemy import Engine, text

from benchmarks import tools
from benchmarks.drain import wait
from benchmarks.harness import (
    SCHEMA,
    Comparison,
    LeftOut,
    Target,
    drained,
    schema,
    settings_for,
    settle,
)
from benchmarks.versus_river import AS_IN_ITS_BENCH, VERSION, environment
from riverrun.bench.run import Elsewhere, crew_of

SLOTS = 32
RIVER = attrs.evolve(AS_IN_ITS_BENCH, workers=SLOTS)

NAME, RIVER_NAME = "riverrun, defaults, 32 slots", "River (Go), tuned, 32 workers"
COMMIT, COLUMN = "to the commit", "to finalized_at"


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Work 200 jobs of 10 ms by each side, in turns.

    Raises:
        LeftOut: If the server does not record the times of commits.
    """
    with engine.connect() as connection:
        if connection.scalar(text("SHOW track_commit_timestamp")) != "on":
            raise LeftOut("the server's track_commit_timestamp is off")
    jobs, rounds = (50, 1) if small else (200, 11)

    def ours() -> tuple[float, float]:
        with schema(engine) as name:
            fill(engine, jobs)
            settings = settings_for(engine, name, slots=SLOTS)
            with crew_of(settings, 1, elsewhere=True) as crew:
                wait(engine, name)
            return p95s(engine, jobs, crew.worked)

    sides: dict[str, Callable[[], tuple[float, float]]] = {NAME: ours}
    without: tuple[str, ...] = ()
    try:
        program = tools.river()
    except tools.Unavailable as error:
        without = (f"{error}.",)
    else:

        def river() -> tuple[float, float]:
            with schema(engine) as name:
                fill(engine, jobs)
                with Elsewhere([str(program), "drain"], environment(engine, name, RIVER)) as crew:
                    wait(engine, name)
                return p95s(engine, jobs, crew.worked)

        sides[RIVER_NAME] = river
    samples: dict[str, list[float]] = {f"{side}, {COMMIT}": [] for side in sides}
    samples |= {f"{side}, {COLUMN}": [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            commit, column = measure()
            samples[f"{side}, {COMMIT}"].append(commit)
            samples[f"{side}, {COLUMN}"].append(column)
    return [
        Comparison(
            question=f"p95 of {jobs} jobs of 10 ms, from the claim to the completion",
            unit="ms",
            samples=samples,
            targets=[
                Target(f"{NAME}, {COMMIT}", 1.5, f"{RIVER_NAME}, {COMMIT}"),
                Target(f"{NAME}, {COLUMN}", 1.5, f"{RIVER_NAME}, {COLUMN}"),
            ],
            less=True,
            settings={"river": VERSION, RIVER_NAME: attrs.asdict(RIVER), "max_workers": SLOTS},
            notes=[
                "Each sample is the 95th percentile of one run, its client just started.",
                (
                    "Both sides set `finalized_at` to the time at which the worker returned, and "
                    "write it later, with others: River up to 250 ms later. The commit is when "
                    "others see the job completed."
                ),
                *without,
            ],
        )
    ]


def fill(engine: Engine, count: int) -> None:
    """Insert `count` jobs of 10 ms."""
    statement = (
        f"INSERT INTO {SCHEMA}.river_job (args, kind, max_attempts, state) "
        "SELECT jsonb_build_object('ms', 10), 'riverrun_bench_nap', 25, 'available' "
        "FROM generate_series(1, :count)"
    )
    with engine.begin() as connection:
        connection.execute(text(statement), {"count": count})
    settle(engine)


def p95s(engine: Engine, jobs: int, worked: int) -> tuple[float, float]:
    """Return the 95th percentiles to the commit and to `finalized_at`, in milliseconds.

    Raises:
        AssertionError: If not every job was worked once.
    """
    assert worked == jobs, f"{worked} worked of {jobs}"
    drained(engine, jobs)
    percentiles = ", ".join(
        f"percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM {end} - attempted_at))"
        for end in ("pg_xact_commit_timestamp(xmin)", "finalized_at")
    )
    with engine.connect() as connection:
        commit, column = connection.execute(
            text(f"SELECT {percentiles} FROM {SCHEMA}.river_job")
        ).one()
    return float(commit) * 1e3, float(column) * 1e3

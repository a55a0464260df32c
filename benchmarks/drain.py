"""How fast are waiting jobs worked? Against a loop that claims and completes and does no more."""

import threading

from sqlalchemy import Engine, text

from benchmarks.harness import Comparison, drained, fill, in_turns, raw_drain, schema, settle
from riverrun.bench.run import crew_of
from riverrun.bench.settings import TUNED_AHEAD, TUNED_GC_THRESHOLD, TUNED_SLOTS, Settings
from riverrun.options import QueueConfig


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Drain 50,000 no-op jobs by each side in turns."""
    jobs, rounds = (3_000, 2) if small else (50_000, 5)
    default = QueueConfig()

    def raw(batch: int) -> float:
        with schema(engine):
            fill(engine, jobs)
            settle(engine)
            raw_drain(engine, batch)
            return drained(engine, jobs)

    def ours(slots: int, ahead: int, processes: int = 1, gc_threshold: int | None = None) -> float:
        with schema(engine) as name:
            fill(engine, jobs)
            settle(engine)
            settings = Settings(
                url=engine.url.render_as_string(hide_password=False),
                schema=name,
                queue="default",
                max_workers=slots,
                claim_ahead=ahead,
                gc_threshold=gc_threshold,
            )
            # In a process of its own, as in earnest: what this one keeps must not slow it down.
            with crew_of(settings, processes, elsewhere=True) as crew:
                wait(engine, name)
            assert crew.worked == jobs
            return drained(engine, jobs)

    tuned = (TUNED_SLOTS, TUNED_AHEAD)
    against_1000 = in_turns(
        {
            "raw loop, 1,000 at a time": lambda: raw(1_000),
            "riverrun, tuned": lambda: ours(*tuned, gc_threshold=TUNED_GC_THRESHOLD),
            "riverrun, defaults, 100 slots": lambda: ours(100, default.claim_ahead),
        },
        rounds,
    )
    against_100 = in_turns(
        {
            "raw loop, 100 at a time": lambda: raw(100),
            "riverrun, defaults, 5 slots": lambda: ours(5, default.claim_ahead),
        },
        rounds,
    )
    together = in_turns(
        {
            f"{count} process{'es' if count > 1 else ''}": lambda count=count: ours(  # type: ignore[misc]
                *tuned, processes=count, gc_threshold=TUNED_GC_THRESHOLD
            )
            for count in (1, 2, 4)
        },
        rounds,
    )
    question = f"drain of {jobs:,} no-op jobs"
    return [
        Comparison(
            question=question,
            unit="jobs/s",
            samples=against_1000,
            targets={"riverrun, tuned": 1.0, "riverrun, defaults, 100 slots": 0.6},
        ),
        Comparison(
            question=question,
            unit="jobs/s",
            samples=against_100,
            targets={"riverrun, defaults, 5 slots": 0.4},
        ),
        Comparison(
            question="processes on one queue, tuned",
            unit="jobs/s",
            samples=together,
            targets={"2 processes": 0.95, "4 processes": 0.95},
        ),
    ]


def wait(engine: Engine, name: str) -> None:
    """Wait until no job waits or runs."""
    statement = text(
        f"SELECT EXISTS (SELECT 1 FROM {name}.river_job WHERE state = 'available') "
        f"OR EXISTS (SELECT 1 FROM {name}.river_job WHERE state = 'running')"
    )
    pause = threading.Event()
    while True:
        with engine.connect() as connection:
            if not connection.execute(statement).scalar_one():
                return
        pause.wait(0.05)

"""How fast do riverrun and River (Go) drain the same tables, and how soon do they begin a job?"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import attrs
from sqlalchemy import Engine, text

from benchmarks import tools
from benchmarks.drain import deleting, ours, raw, tuned, wait, waiting
from benchmarks.harness import (
    SCHEMA,
    Comparison,
    Target,
    drained,
    in_turns,
    profiled,
    schema,
    settings_for,
)
from benchmarks.pickup import notifications
from riverrun import Client
from riverrun.bench.run import Elsewhere, crew_of, pick_ups
from riverrun.bench.settings import TUNED_AHEAD, TUNED_GC_THRESHOLD, TUNED_SLOTS
from riverrun.config import QueueConfig

VERSION = "v0.51.2"
PAUSE_S = 0.12
"""Seconds between two pick-ups: more than River's wait of 100 ms between fetches, or the benchmark
would measure that wait."""

RAW = "raw loop, 1,000 at a time"
TUNED = "riverrun, tuned"
DEFAULTS = "riverrun, defaults, 100 slots"
DELETING = "riverrun, tuned, completed jobs deleted"
RIVER_TUNED = "River (Go), tuned, 1,000 workers"
RIVER_DEFAULTS = "River (Go), defaults, 100 workers"


@attrs.frozen(kw_only=True)
class River:
    """Settings of River; a duration of 0 means River's default.

    Attributes:
        workers: Most jobs of the queue at once.
        cooldown_ms: Least milliseconds between two fetches.
        poll_ms: Milliseconds between two fetches without a notification.
        writes: Whether each job inserts a row in the transaction of its completion.
    """

    workers: int
    cooldown_ms: int = 0
    poll_ms: int = 0
    writes: bool = False


# Source: River 0.51.2, `river bench`: cooldown 2 ms, poll 20 ms. Its defaults: 100 ms, 1 s.
AS_IN_ITS_BENCH = River(workers=1_000, cooldown_ms=2, poll_ms=20)
BY_DEFAULT = River(workers=100)


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Drain jobs by each side in turns; then insert jobs one by one at idle."""
    try:
        program, without = tools.river(), ()
    except tools.Unavailable as error:
        program, without = None, (f"{error}.",)
    found = [drain(engine, program, small=small), pickup(engine, program, small=small)]
    return [attrs.evolve(comparison, notes=[*comparison.notes, *without]) for comparison in found]


def drain(engine: Engine, program: Path | None, *, small: bool) -> Comparison:
    """Drain 50,000 jobs by riverrun, by River, and by the raw loop."""
    jobs, rounds = (2_000, 1) if small else (50_000, 5)
    # With its defaults, River's cooldown limits its rate; ten times the jobs would take a minute.
    fewer = 500 if small else 5_000

    def river(settings: River, count: int) -> float:
        assert program is not None
        with waiting(engine, count) as name:
            with Elsewhere([str(program), "drain"], environment(engine, name, settings)) as crew:
                wait(engine, name)
            assert crew.worked == count
            return drained(engine, count)

    sides = {
        RAW: lambda: raw(engine, jobs, 1_000),
        TUNED: lambda: tuned(engine, jobs),
        DEFAULTS: lambda: ours(engine, jobs, slots=100),
        DELETING: lambda: deleting(engine, jobs),
    }
    if program is not None:
        sides[RIVER_TUNED] = lambda: river(AS_IN_ITS_BENCH, jobs)
        sides[RIVER_DEFAULTS] = lambda: river(BY_DEFAULT, fewer)
    comparison = Comparison(
        question=f"drain of {jobs:,} no-op jobs, beside River (Go)",
        unit="jobs/s",
        samples=in_turns(sides, rounds),
        targets=[
            Target(TUNED, 1.5, RAW),
            Target(TUNED, 1.3, RIVER_TUNED),
            Target(DEFAULTS, 1.0, RIVER_TUNED),
            Target(DELETING, 2.0, RIVER_TUNED),
        ],
        settings={
            "river": VERSION,
            RIVER_TUNED: attrs.asdict(AS_IN_ITS_BENCH),
            RIVER_DEFAULTS: attrs.asdict(BY_DEFAULT),
            TUNED: {
                "max_workers": TUNED_SLOTS,
                "claim_ahead": TUNED_AHEAD,
                "gc_threshold": TUNED_GC_THRESHOLD,
            },
            DEFAULTS: {"max_workers": 100, "claim_ahead": QueueConfig().claim_ahead},
        },
        notes=[
            f"River (Go) {VERSION} works the same rows, tuned as its own `river bench` is.",
            f"At its defaults River is given {fewer:,} jobs: its rate is that of its cooldown.",
            "Each side works in a process of its own, from the first claim to the last completion.",
        ],
    )
    return profiled(comparison, sides)


def pickup(engine: Engine, program: Path | None, *, small: bool) -> Comparison:
    """Insert jobs one by one at idle, by riverrun and by River."""
    rounds, count = (1, 5) if small else (5, 30)
    idle_s = 0.2 if small else 2.0
    of_claims: list[float] = []

    def ours() -> list[float]:
        with schema(engine) as name:
            settings = settings_for(engine, name)
            with crew_of(settings, 1, elsewhere=True):
                client = Client(engine, schema=name)
                threading.Event().wait(idle_s)  # Until it is idle.
                never = threading.Event()
                taken = pick_ups(client, engine, settings, never, count=count, pause_s=PAUSE_S)
                client.flush_announcements()
            of_claims.extend(since_claimed(engine))
        assert len(taken) == count, f"{len(taken)} of {count} were picked up"
        return taken

    def river(settings: River) -> list[float]:
        assert program is not None
        with schema(engine) as name:
            done = subprocess.run(
                [str(program), "pickup"],
                env=environment(engine, name, settings, count=count, idle_s=idle_s),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        taken: list[float] = json.loads(done.stdout)
        assert len(taken) == count
        return taken

    sides = {
        "NOTIFY to LISTEN": lambda: notifications(engine, count),
        "riverrun, defaults, other process": ours,
    }
    if program is not None:
        sides["River (Go), tuned"] = lambda: river(AS_IN_ITS_BENCH)
        sides["River (Go), defaults"] = lambda: river(BY_DEFAULT)
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            samples[side] += measure()
    samples["of riverrun's, from the claim's beginning"] = of_claims
    return Comparison(
        question="pick-up at idle, beside River (Go)",
        unit="ms",
        samples=samples,
        targets=[
            Target("riverrun, defaults, other process", 1.2, percentile=50),
            Target("riverrun, defaults, other process", 1.0, "River (Go), tuned"),
        ],
        less=True,
        settings={"river": VERSION, "pause_s": PAUSE_S},
        notes=[
            (
                f"From the answer to the commit until the worker's first line; a job every "
                f"{PAUSE_S * 1e3:.0f} ms. River's jobs are inserted by a second client in the same "
                "process, riverrun's by another process."
            ),
            (
                "What comes before riverrun's claim begins: the notification by the INSERT, and "
                "the worker's threads that receive it."
            ),
        ],
    )


def since_claimed(engine: Engine) -> list[float]:
    """Return the milliseconds from the begin of each claim to the first line of the worker."""
    statement = (
        "SELECT CAST(metadata->>'output' AS bigint), extract(epoch FROM attempted_at) "
        f"FROM {SCHEMA}.river_job ORDER BY id"
    )
    # The worker records monotonic time; the server's clock is this machine's wall clock.
    ahead_s = time.time() - time.monotonic()
    with engine.connect() as connection:
        rows = connection.execute(text(statement)).all()
    return [(at / 1e9 + ahead_s - float(claimed)) * 1e3 for at, claimed in rows]


def environment(
    engine: Engine, name: str, settings: River, *, count: int = 0, idle_s: float = 0.0
) -> Mapping[str, str]:
    """Return an environment that passes the settings to the Go program."""
    address = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    values = {"url": address, "schema": name, "count": count, "pause_s": PAUSE_S, "idle_s": idle_s}
    return {**os.environ, "RIVER_BENCH": json.dumps({**values, **attrs.asdict(settings)})}


def url(engine: Engine) -> str:
    """Return the database's URL, with its password."""
    return engine.url.render_as_string(hide_password=False)

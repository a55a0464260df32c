"""How soon does a job begin after the commit of its insert, compared with a bare notification?"""

import threading
import time

from sqlalchemy import Engine

from benchmarks.harness import Comparison, Target, driver, profiled, schema, settings_for
from riverrun import Client
from riverrun.bench.run import PAUSE_S, Here, crew_of, pick_ups

OTHER = "riverrun, other process"
SAME = "riverrun, same process"


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Insert jobs one by one while the worker is idle, with default settings."""
    rounds = 1 if small else 6
    idle_s = 0.2 if small else 2.0
    sides = {
        OTHER: lambda: pick_up(engine, elsewhere=True, rounds=rounds, idle_s=idle_s),
        SAME: lambda: pick_up(engine, elsewhere=False, rounds=rounds, idle_s=idle_s),
    }
    samples = {"NOTIFY to LISTEN": notifications(engine, 50 * rounds)}
    samples |= {side: measure() for side, measure in sides.items()}
    comparison = Comparison(
        question="pick-up at idle, defaults",
        unit="ms",
        samples=samples,
        targets=[
            Target(OTHER, 1.2, percentile=50),
            Target(OTHER, 3.0, percentile=99),
            Target(SAME, 1.1, percentile=50),
            Target(SAME, 3.0, percentile=99),
        ],
        less=True,
        notes=[f"A job every {PAUSE_S * 1e3:.0f} ms; `versus_river` leaves more time between."],
    )
    return [comparison if small else profiled(comparison, sides)]


def pick_up(engine: Engine, *, elsewhere: bool, rounds: int, idle_s: float) -> list[float]:
    """Return the milliseconds from each commit to the first line of the worker."""
    with schema(engine) as name:
        settings = settings_for(engine, name)
        with crew_of(settings, 1, elsewhere=elsewhere) as crew:
            threading.Event().wait(idle_s)  # Until it is idle.
            client = crew.client if isinstance(crew, Here) else Client(engine, schema=name)
            taken = [
                sample
                for _ in range(rounds)
                for sample in pick_ups(client, engine, settings, threading.Event())
            ]
            client.flush_announcements()
    return taken


def notifications(engine: Engine, count: int) -> list[float]:
    """Return the milliseconds from NOTIFY to its arrival at another connection."""
    taken = []
    with driver(engine) as sender, driver(engine) as listener:
        listener.execute("LISTEN benchmark")
        for _ in range(count):
            began = time.perf_counter()
            sender.execute("NOTIFY benchmark")
            next(listener.notifies(timeout=5, stop_after=1))
            taken.append((time.perf_counter() - began) * 1e3)
    return taken

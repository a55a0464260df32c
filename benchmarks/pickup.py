"""How soon does a job begin after the commit that inserted it? And a notification, alone?"""

import threading
import time

from sqlalchemy import Engine

from benchmarks.harness import Comparison, Target, driver, schema
from riverrun import Client
from riverrun.bench.run import Here, crew_of, pick_ups
from riverrun.bench.settings import Settings
from riverrun.options import QueueConfig


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Insert jobs one by one at idle, at default settings."""
    rounds = 1 if small else 6
    default = QueueConfig()
    samples: dict[str, list[float]] = {"NOTIFY to LISTEN": notifications(engine, 50 * rounds)}
    with schema(engine) as name:
        settings = Settings(
            url=engine.url.render_as_string(hide_password=False),
            schema=name,
            queue="default",
            max_workers=default.max_workers,
            claim_ahead=default.claim_ahead,
        )
        for side, elsewhere in (
            ("riverrun, other process", True),
            ("riverrun, same process", False),
        ):
            with crew_of(settings, 1, elsewhere=elsewhere) as crew:
                threading.Event().wait(2)  # Until it is idle.
                client = crew.client if isinstance(crew, Here) else Client(engine, schema=name)
                samples[side] = [
                    sample
                    for _ in range(rounds)
                    for sample in pick_ups(client, engine, settings, threading.Event())
                ]
                client.flush_announcements()
    return [
        Comparison(
            question="pick-up at idle, defaults",
            unit="ms",
            samples=samples,
            targets=[
                Target("riverrun, other process", 2.0, percentile=50),
                Target("riverrun, other process", 8.0, percentile=99),
                Target("riverrun, same process", 1.5, percentile=50),
                Target("riverrun, same process", 8.0, percentile=99),
            ],
            less=True,
        )
    ]


def notifications(engine: Engine, count: int) -> list[float]:
    """Return the milliseconds from NOTIFY to its arrival at another connection."""
    taken = []
    with driver(engine) as sender, driver(engine) as hearer:
        hearer.execute("LISTEN benchmark")
        for _ in range(count):
            began = time.perf_counter()
            sender.execute("NOTIFY benchmark")
            next(hearer.notifies(timeout=5, stop_after=1))
            taken.append((time.perf_counter() - began) * 1e3)
    return taken

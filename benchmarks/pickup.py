"""How soon does a job begin after the commit that inserted it? And a notification, alone?"""

import threading
import time

from sqlalchemy import Engine

from benchmarks.harness import Comparison, driver, schema
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
        for side, elsewhere in (("other process", True), ("same process", False)):
            with crew_of(settings, 1, elsewhere=elsewhere) as crew:
                threading.Event().wait(2)  # Until it is idle.
                client = crew.client if isinstance(crew, Here) else Client(engine, schema=name)
                samples[side] = [
                    sample
                    for _ in range(rounds)
                    for sample in pick_ups(client, engine, settings, threading.Event())
                ]
                client.flush_announcements()
    limits = {"other process": (2.0, 8.0), "same process": (1.5, 8.0)}
    comparisons = []
    for side, (p50, p99) in limits.items():
        ordered = sorted(samples[side])
        for name_, limit, index in (
            ("p50", p50, len(ordered) // 2),
            ("p99", p99, int(len(ordered) * 0.99)),
        ):
            comparisons.append(
                Comparison(
                    question=f"pick-up at idle, {side}, {name_}, beside its limit in ms",
                    unit="ms",
                    samples={"limit": [limit], "riverrun": [ordered[min(index, len(ordered) - 1)]]},
                    targets={"riverrun": 1.0},
                    less=True,
                    settings={"samples": samples[side]},
                )
            )
    return [
        Comparison(
            question="pick-up at idle, defaults", unit="ms", samples=samples, targets={}, less=True
        ),
        *comparisons,
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

"""What does a client cost that has nothing to do?"""

import threading
import time
from collections import Counter
from typing import Any

from sqlalchemy import Engine, create_engine, event, text

from benchmarks.harness import Comparison, Target, schema
from riverrun import Client, QueueConfig, Workers
from riverrun.bench.work import NoOp

QUEUES = 10


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Let one client of ten queues wait, and count what it asks and how long it computes."""
    seconds, rounds = (1.0, 1) if small else (10.0, 5)
    samples: dict[str, list[float]] = {"per queue": [], "of all the client": []}
    transactions, computed = [], []
    asked: Counter[str] = Counter()
    own = create_engine(engine.url)

    @event.listens_for(own, "before_cursor_execute")
    def count(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked[" ".join(statement.split())[:100]] += 1

    workers = Workers()
    workers.register(no_op)
    with schema(engine) as name:
        client = Client(
            own,
            workers=workers,
            queues={f"queue_{number}": QueueConfig() for number in range(QUEUES)},
            schema=name,
        )
        with client:
            pause = threading.Event()
            pause.wait(1 if small else 5)  # Until it leads, and has begun all that it does.
            whole: Counter[str] = Counter()
            for _ in range(rounds):
                before = committed(engine)
                asked.clear()
                cpu_s, began = time.process_time(), time.monotonic()
                pause.wait(seconds)
                took_s = time.monotonic() - began
                computed.append(100 * (time.process_time() - cpu_s) / took_s)
                counts = asked.copy()
                whole += counts
                transactions.append((committed(engine) - before) / took_s)
                beyond = sum(n for each, n in counts.items() if not is_heartbeat(each))
                samples["per queue"].append(beyond / took_s / QUEUES)
                samples["of all the client"].append(counts.total() / took_s)
    own.dispose()
    return [
        Comparison(
            question=f"statements of an idle client with {QUEUES} queues",
            unit="statements/s",
            samples={
                "riverrun, a queue, beyond heartbeats": samples["per queue"],
                "riverrun, all": samples["of all the client"],
                "transactions of the database": transactions,
            },
            targets=[Target("riverrun, a queue, beyond heartbeats", 0.5, percentile=50)],
            less=True,
            notes=[f"{n / (rounds * seconds):.2f}/s: `{each}`" for each, n in whole.most_common(8)],
        ),
        Comparison(
            question=f"processor time of an idle client with {QUEUES} queues",
            unit="% of a core",
            samples={"riverrun": computed},
            targets=[Target("riverrun", 1.0, percentile=50)],
            less=True,
        ),
    ]


def no_op(_: NoOp) -> None:
    """Do nothing."""


def is_heartbeat(statement: str) -> bool:
    """Return whether a statement says that a client or leader lives, whatever its queues."""
    return "riverrun_client" in statement or "river_leader" in statement


def committed(engine: Engine) -> int:
    """Return the transactions that the database has seen."""
    statement = (
        "SELECT xact_commit + xact_rollback FROM pg_stat_database "
        "WHERE datname = current_database()"
    )
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())

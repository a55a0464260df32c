"""What does an idle client cost?"""

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
    """Count the statements and the processor time of one idle client with ten queues."""
    seconds, rounds = (1.0, 1) if small else (10.0, 5)
    samples: dict[str, list[float]] = {"per queue": [], "of all the client": []}
    transactions, computed = [], []
    executed: Counter[str] = Counter()
    own = create_engine(engine.url)

    @event.listens_for(own, "before_cursor_execute")
    def count(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        executed[" ".join(statement.split())[:100]] += 1

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
            pause.wait(1 if small else 5)  # Until it leads and has started all its parts.
            whole: Counter[str] = Counter()
            for _ in range(rounds):
                before = committed(engine)
                executed.clear()
                cpu_s, began = time.process_time(), time.monotonic()
                pause.wait(seconds)
                took_s = time.monotonic() - began
                computed.append(100 * (time.process_time() - cpu_s) / took_s)
                counts = executed.copy()
                whole += counts
                transactions.append((committed(engine) - before) / took_s)
                beyond = sum(n for statement, n in counts.items() if not is_heartbeat(statement))
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
            notes=[
                f"{n / (rounds * seconds):.2f}/s: `{statement}`"
                for statement, n in whole.most_common(8)
            ],
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
    """Return whether a statement is a heartbeat of a client or leader: the same for any queues."""
    return "riverrun_client" in statement or "river_leader" in statement


def committed(engine: Engine) -> int:
    """Return how many transactions the database has executed."""
    statement = (
        "SELECT xact_commit + xact_rollback FROM pg_stat_database "
        "WHERE datname = current_database()"
    )
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())

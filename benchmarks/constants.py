"""What does a job cost its database: bytes of WAL and of disk, statements, connections?

These are counts, not times, so a busy machine does not change them. No other client may use the
server meanwhile.
"""

import random
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, create_engine, event, text

from benchmarks.drain import wait
from benchmarks.harness import SCHEMA, Comparison, schema, settle
from riverrun import Client, JobContext, QueueConfig, Workers, verbs
from riverrun.bench.work import NoOp
from riverrun.db.transactions import joined
from riverrun.jobs.args import RawArgs
from riverrun.jobs.row import JobRow
from riverrun.outcome import completed
from riverrun.verbs.clean import clean
from riverrun.verbs.complete import record

BATCH = 100
IDLE_QUEUES = 4
SLOTS = 10


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Count everything."""
    jobs = 200 if small else 5_000
    return [
        wal(engine, jobs, checkpoint=False),
        wal(engine, jobs, checkpoint=True),
        size(engine, jobs),
        statements(engine, 100 if small else 1_000),
        connections(engine, small=small),
    ]


def wal(engine: Engine, jobs: int, *, checkpoint: bool) -> Comparison:
    """Return the bytes of write-ahead log that each step of a job's life takes."""
    samples: dict[str, list[float]] = {}

    def measure(side: str, count: int, step: Callable[[], object]) -> None:
        if checkpoint:
            settle(engine)
        before = _lsn(engine)
        step()
        samples[side] = [(_lsn(engine) - before) / count]

    one_by_one = jobs // 10
    with schema(engine):
        client = Client(engine, schema=SCHEMA, notify="off")
        with engine.begin() as connection:
            still = f"ALTER TABLE {SCHEMA}.river_job SET (autovacuum_enabled = off)"
            connection.execute(text(still))
        # Fill the table first, so that only pages that are new to the table are new to the WAL.
        client.insert_many_fast(engine, _args(jobs))
        settle(engine)
        with engine.connect() as connection:

            def insert_one_by_one() -> None:
                for args in _args(one_by_one):
                    with connection.begin():
                        client.insert(connection, args)

            measure("insert, each in a transaction", one_by_one, insert_one_by_one)
        measure("insert_many", jobs, lambda: client.insert_many(engine, _args(jobs)))
        measure("insert_many_fast", jobs, lambda: client.insert_many_fast(engine, _args(jobs)))
        claimed: list[JobRow] = []
        measure("claim", jobs, lambda: claimed.extend(_claimed(engine, jobs)))
        measure("complete", jobs, lambda: _complete(engine, claimed))
        measure("delete", jobs, lambda: _clean(engine, jobs))
    when = "right after a checkpoint" if checkpoint else "no checkpoint since"
    return Comparison(
        question=f"write-ahead log of a job, {when}",
        unit="bytes",
        samples=samples,
        less=True,
        settings={"jobs": jobs, "batch": BATCH},
        notes=[
            f"Claimed, completed and deleted {BATCH} at a time, without autovacuum.",
            "Right after a checkpoint the first change of a page logs the whole page.",
        ],
    )


def size(engine: Engine, jobs: int) -> Comparison:
    """Return the bytes that a completed job keeps, in the table and in its indexes."""
    samples = {}
    for args_bytes in (20, 1_000):
        with schema(engine):
            client = Client(engine, schema=SCHEMA, notify="off")
            client.insert_many_fast(engine, _args(jobs, args_bytes))
            _complete(engine, _claimed(engine, jobs))
            settle(engine)
            with engine.connect() as connection:
                for side, function in (("table", "pg_table_size"), ("indexes", "pg_indexes_size")):
                    statement = text(f"SELECT {function}('{SCHEMA}.river_job')")
                    bytes_ = connection.execute(statement).scalar_one()
                    samples[f"{side}, args of {args_bytes:,} bytes"] = [bytes_ / jobs]
    return Comparison(
        question="disk of a completed job",
        unit="bytes",
        samples=samples,
        less=True,
        settings={"jobs": jobs},
        notes=[
            "After one attempt and a VACUUM, which leaves room in the table that later jobs fill.",
            "Args of random letters, which do not compress.",
        ],
    )


def statements(engine: Engine, jobs: int) -> Comparison:
    """Return the statements for each job of a client that drains a queue."""

    def transactional(_: NoOp, ctx: JobContext) -> None:
        with ctx.transaction():
            pass

    samples = {}
    for side, work, slots in (
        (f"returning, {SLOTS} slots", _no_op, SLOTS),
        ("returning, 1 slot", _no_op, 1),
        (f"ctx.transaction(), {SLOTS} slots", transactional, SLOTS),
    ):
        with schema(engine) as name:
            counted = [0]
            own = create_engine(engine.url, pool_size=2 * SLOTS)

            @event.listens_for(own, "before_cursor_execute")
            def count(*_: Any, counted: list[int] = counted) -> None:
                counted[0] += 1

            workers = Workers()
            workers.register(work)
            queues = {"default": QueueConfig(max_workers=slots)}
            client = Client(own, workers=workers, queues=queues, schema=name)
            with engine.begin() as connection:
                verbs.insert_many(connection, [NoOp(n) for n in range(jobs)], schema=name)
            with client:
                wait(engine, name)
            own.dispose()
            samples[side] = [counted[0] / jobs]
    return Comparison(
        question="statements for each job of a client that drains a queue",
        unit="statements",
        samples=samples,
        less=True,
        settings={"jobs": jobs},
        notes=[
            "Without BEGIN and COMMIT; with all other statements of the client, such as heartbeats."
        ],
    )


def connections(engine: Engine, *, small: bool) -> Comparison:
    """Return the connections that a client keeps open."""
    samples = {}
    for side, queues, poll_only in (
        ("idle, 1 queue", 1, False),
        (f"idle, {IDLE_QUEUES} queues", IDLE_QUEUES, False),
        ("idle, 1 queue, poll_only", 1, True),
    ):
        with schema(engine) as name:
            named = {"application_name": "riverrun_counted"}
            own = create_engine(engine.url, connect_args=named)
            workers = Workers()
            workers.register(_no_op)
            names = {f"queue_{number}": QueueConfig() for number in range(queues)}
            client = Client(own, workers=workers, queues=names, schema=name, poll_only=poll_only)
            with client:
                # Wait until it leads and has started all its parts.
                threading.Event().wait(1 if small else 10)
                statement = text(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE application_name = 'riverrun_counted'"
                )
                with engine.connect() as connection:
                    samples[side] = [float(connection.execute(statement).scalar_one())]
            own.dispose()
    return Comparison(
        question="connections of a client",
        unit="connections",
        samples=samples,
        less=True,
        notes=[
            "What its pool has opened, and the one that listens.",
            "Workers that use the engine, such as by ctx.transaction(), add one per busy slot.",
        ],
    )


def _no_op(_: NoOp) -> None:
    """Do nothing."""


def _args(count: int, size: int = 20) -> list[RawArgs]:
    """Return different args that take about `size` bytes of JSON each."""
    rng = random.Random(size)
    letters = max(1, size - len('{"text":""}'))
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return [
        RawArgs(kind="constant", encoded={"text": "".join(rng.choices(alphabet, k=letters))})
        for _ in range(count)
    ]


def _claimed(engine: Engine, jobs: int) -> list[JobRow]:
    found: list[JobRow] = []
    while len(found) < jobs:
        limit = min(BATCH, jobs - len(found))
        found += verbs.claim(engine, limit=limit, client_id="constants", schema=SCHEMA)
    return found


def _complete(engine: Engine, jobs: list[JobRow]) -> None:
    for start in range(0, len(jobs), BATCH):
        outcomes = [completed(job.id, job.attempt) for job in jobs[start : start + BATCH]]
        with joined(engine, SCHEMA) as transaction:
            assert len(record(transaction, outcomes, merge_anyway=False)) == len(outcomes)


def _clean(engine: Engine, jobs: int) -> None:
    kept: dict[str, Any] = {"cancelled_s": None, "discarded_s": None, "completed_s": 0}
    deleted = 0
    while count := clean(engine, limit=BATCH, schema=SCHEMA, **kept):
        deleted += count
    assert deleted == jobs, f"{deleted} deleted of {jobs}"


def _lsn(engine: Engine) -> int:
    statement = text("SELECT pg_current_wal_insert_lsn() - '0/0'")
    with engine.connect() as connection:
        return int(connection.execute(statement).scalar_one())

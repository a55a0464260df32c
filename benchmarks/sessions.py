"""How many jobs a second do workers with a session do, each with one write in its transaction?

A job's write and its completion are one commit on each side, by 10 threads.
"""

import queue
import threading
from collections.abc import Callable

import psycopg
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from benchmarks.drain import wait, waiting
from benchmarks.harness import SCHEMA, Comparison, drained, in_turns, profiled
from riverrun import Client, JobContext, QueueConfig, Workers
from riverrun.bench.work import NoOp

THREADS = 10
RAW = "psycopg, 10 threads"
OURS = "riverrun, workers with a Session, 10 slots"
BLOCK = "riverrun, ctx.transaction(), 10 slots"

_CLAIM = f"""
    UPDATE {SCHEMA}.river_job SET state = 'running', attempt = attempt + 1, attempted_at = now()
    WHERE id = ANY(ARRAY(
        SELECT id FROM {SCHEMA}.river_job WHERE state = 'available' AND queue = 'default'
        ORDER BY priority, scheduled_at, id LIMIT 100 FOR UPDATE SKIP LOCKED))
    RETURNING id, attempt
"""
_WRITE = f"INSERT INTO {SCHEMA}.effect (job_id) VALUES (%s)"
_COMPLETE = f"""
    UPDATE {SCHEMA}.river_job SET state = 'completed', finalized_at = now()
    WHERE id = %s AND attempt = %s AND state = 'running'
"""


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Drain 10,000 jobs that write a row each, by each side in turns."""
    jobs, rounds = (500, 1) if small else (10_000, 5)
    sides: dict[str, Callable[[], float]] = {
        RAW: lambda: raw(engine, jobs),
        OURS: lambda: ours(engine, jobs, in_session),
        BLOCK: lambda: ours(engine, jobs, in_block),
    }
    comparison = Comparison(
        question=f"drain of {jobs:,} jobs that write a row in the transaction of their completion",
        unit="jobs/s",
        samples=in_turns(sides, rounds),
        targets={OURS: 0.85},
        settings={"threads": THREADS},
    )
    return [profiled(comparison, sides)]


def raw(engine: Engine, jobs: int) -> float:
    """Return the jobs per second of threads that claim 100 jobs and do one after the other."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with waiting(engine, jobs) as name:
        _table(engine)
        line: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()

        def work() -> None:
            with psycopg.connect(url) as connection:
                while (job := line.get()) is not None:
                    connection.execute(_WRITE, [job[0]])
                    connection.execute(_COMPLETE, job)
                    connection.commit()

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        with psycopg.connect(url, autocommit=True) as connection:
            while claimed := connection.execute(_CLAIM).fetchall():
                for job in claimed:
                    line.put(job)
                while line.qsize() > THREADS:
                    threading.Event().wait(0.001)
        for _ in threads:
            line.put(None)
        for thread in threads:
            thread.join()
        wait(engine, name)
        return _checked(engine, jobs)


def in_session(workers: Workers) -> None:
    """Register a worker with a session."""

    @workers.register
    def work(_: NoOp, ctx: JobContext, session: Session) -> None:
        session.execute(_INSERT, {"job_id": ctx.job.id})


def in_block(workers: Workers) -> None:
    """Register a worker with a block."""

    @workers.register
    def work(_: NoOp, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            session.execute(_INSERT, {"job_id": ctx.job.id})


_INSERT = text(f"INSERT INTO {SCHEMA}.effect (job_id) VALUES (:job_id)")


def ours(engine: Engine, jobs: int, register: Callable[[Workers], None]) -> float:
    """Return the jobs per second of riverrun."""
    own = create_engine(engine.url, pool_size=THREADS)
    workers = Workers()
    register(workers)
    with waiting(engine, jobs) as name:
        _table(engine)
        client = Client(
            own,
            workers=workers,
            queues={"default": QueueConfig(max_workers=THREADS)},
            schema=name,
            leader_election_disabled=True,
        )
        with client:
            wait(engine, name)
        own.dispose()
        return _checked(engine, jobs)


def _table(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {SCHEMA}.effect (job_id bigint PRIMARY KEY)"))


def _checked(engine: Engine, jobs: int) -> float:
    with engine.connect() as connection:
        rows = connection.scalar(text(f"SELECT count(*) FROM {SCHEMA}.effect"))
    assert rows == jobs, f"{rows} effects of {jobs} jobs"
    return drained(engine, jobs)

"""How many jobs a second do workers with a session do, each with one write in its transaction?

A job's write and its completion are one commit on each side, by 10 threads.
"""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import attrs
import psycopg
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from benchmarks import tools
from benchmarks.drain import wait, waiting
from benchmarks.harness import SCHEMA, Comparison, Target, drained, in_turns, profiled
from benchmarks.versus_river import AS_IN_ITS_BENCH, VERSION, environment
from riverrun import Client, JobContext, QueueConfig, Workers
from riverrun.bench.run import Elsewhere
from riverrun.bench.work import NoOp

THREADS = 10
RAW = "psycopg, 10 threads"
PLAIN = "SQLAlchemy, a Session each, 10 threads"
OURS = "riverrun, workers with a Session, 10 slots"
BLOCK = "riverrun, ctx.transaction(), 10 slots"
RIVER_NAME = "River (Go), JobCompleteTx, 10 workers"
RIVER = attrs.evolve(AS_IN_ITS_BENCH, workers=THREADS, writes=True)

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
        PLAIN: lambda: sqlalchemy(engine, jobs),
        OURS: lambda: ours(engine, jobs, in_session),
        BLOCK: lambda: ours(engine, jobs, in_block),
    }
    targets, without = [Target(OURS, 0.85), Target(BLOCK, 0.85)], ()
    try:
        program = tools.river()
    except tools.Unavailable as error:
        without = (f"{error}.",)
    else:
        sides[RIVER_NAME] = lambda: river(engine, jobs, program)
        targets += [Target(side, 1.0, RIVER_NAME) for side in (OURS, BLOCK)]
    comparison = Comparison(
        question=f"drain of {jobs:,} jobs that write a row in the transaction of their completion",
        unit="jobs/s",
        samples=in_turns(sides, rounds),
        targets=targets,
        settings={"threads": THREADS, "river": VERSION, RIVER_NAME: attrs.asdict(RIVER)},
        notes=[
            "No side that uses a Session can be faster than the side that does nothing else.",
            "riverrun works in the benchmark's process, which only waits; River in one of its own.",
            *without,
        ],
    )
    return [profiled(comparison, sides)]


Line: TypeAlias = "queue.SimpleQueue[tuple[int, int] | None]"


def raw(engine: Engine, jobs: int) -> float:
    """Return the jobs per second of threads that use psycopg."""

    def work(line: Line) -> None:
        with psycopg.connect(_url(engine)) as connection:
            while (job := line.get()) is not None:
                connection.execute(_WRITE, [job[0]])
                connection.execute(_COMPLETE, job)
                connection.commit()

    return by_hand(engine, jobs, work)


def sqlalchemy(engine: Engine, jobs: int) -> float:
    """Return the jobs per second of threads that use a Session for each job."""
    own = create_engine(engine.url, pool_size=THREADS)

    def work(line: Line) -> None:
        while (job := line.get()) is not None:
            with Session(own) as session:
                session.execute(_INSERT, {"job_id": job[0]})
                session.execute(_UPDATE, {"job_id": job[0], "attempt": job[1]})
                session.commit()

    try:
        return by_hand(engine, jobs, work)
    finally:
        own.dispose()


def by_hand(engine: Engine, jobs: int, work: Callable[[Line], None]) -> float:
    """Return the jobs per second of threads that get jobs from a loop that claims 100 at a time."""
    with waiting(engine, jobs) as name:
        _table(engine)
        line: Line = queue.SimpleQueue()
        threads = [threading.Thread(target=work, args=(line,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        with psycopg.connect(_url(engine), autocommit=True) as connection:
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


def _url(engine: Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


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
_UPDATE = text(_COMPLETE.replace("%s", ":job_id", 1).replace("%s", ":attempt", 1))


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


def river(engine: Engine, jobs: int, program: Path) -> float:
    """Return the jobs per second of River (Go)."""
    with waiting(engine, jobs) as name:
        _table(engine)
        with Elsewhere([str(program), "drain"], environment(engine, name, RIVER)) as crew:
            wait(engine, name)
        assert crew.worked == jobs, f"{crew.worked} worked of {jobs}"
        return _checked(engine, jobs)


def _table(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {SCHEMA}.effect (job_id bigint PRIMARY KEY)"))


def _checked(engine: Engine, jobs: int) -> float:
    with engine.connect() as connection:
        rows = connection.scalar(text(f"SELECT count(*) FROM {SCHEMA}.effect"))
    assert rows == jobs, f"{rows} effects of {jobs} jobs"
    return drained(engine, jobs)

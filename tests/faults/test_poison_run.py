"""Ten thousand ordinary jobs among harmful ones: none is lost and none waits long."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, text

from faults.conftest import LONG
from faults.evils import (
    COROUTINES,
    PROCESSES,
    QUEUES,
    THREADS,
    Evil,
    EvilCoroutine,
    EvilProcess,
    all_evils,
    refuse,
)
from riverrun import Client, InsertOpts, JobArgs, JobContext, Workers
from waiting import until

ORDINARY = 10_000
LASTS_S = 600.0 if LONG else 60.0
LATE_S = 5.0
"""Seconds by which an ordinary job may finish later than it would alone."""

workers = Workers()


@attrs.frozen
class Ordinary(JobArgs, kind="ordinary"):
    """Args of an ordinary job in a thread."""

    number: int


@attrs.frozen
class Quick(JobArgs, kind="quick"):
    """Args of an ordinary job on the event loop."""

    number: int


@workers.register
def ordinary(args: Ordinary) -> None:
    """Do nothing."""


@workers.register
async def quick(args: Quick) -> None:
    """Do nothing."""


@workers.register(timeout=5)
def evil(args: Evil, ctx: JobContext) -> None:
    """Do the harm that the args name."""
    THREADS[args.how](ctx)


@workers.register(timeout=5)
async def evil_coroutine(args: EvilCoroutine) -> None:
    """Do the harm on the event loop."""
    await COROUTINES[args.how]()


@workers.register(timeout=5, executor="process")
def evil_process(args: EvilProcess) -> None:
    """Do the harm in a process."""
    PROCESSES[args.how]()


class Stalls:
    """Records when this machine delayed a thread that slept for 20 ms, and by how much."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stalls")

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(0.02):
            now = time.monotonic()
            if now - before > 0.04:
                self._seen.append((time.time(), now - before))
            before = now

    def between(self, began: float, ended: float) -> float:
        """Return the seconds, between two wall-clock times, for which the machine stood still."""
        return sum(stall_s for at, stall_s in self._seen if began <= at <= ended + stall_s)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record stalls while the block runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.timeout(LASTS_S + 240)
def test_ordinary_jobs_among_evils(engine: Engine, schema: str) -> None:
    """While a new kind of harm begins each second, every other job finishes within 5 s."""
    refuse(engine, schema)
    host = create_engine(
        engine.url, pool_size=5, max_overflow=10, connect_args={"application_name": "poison_run"}
    )
    client = Client(
        host,
        workers=workers,
        queues=QUEUES,
        schema=schema,
        processes=1,
        skip_unknown_job_check=True,
        hard_stop_timeout=5,
        rescue_after=20,  # for a job that names a client which does not exist
    )
    inserter = Client(engine, schema=schema)
    evils = all_evils()
    assert len(evils) >= 25
    stalls = Stalls()
    with stalls.watched(), client:
        evil_ids = feed(inserter, engine, evils)
        until(lambda: unfinished(engine, schema, ("ordinary", "quick")) == 0, "they are done", 60)
        until(
            lambda: unrecorded(engine, schema, client) == [],
            "each evil is recorded",
            90,
            why=lambda: unrecorded(engine, schema, client),
        )
    host.dispose()
    with engine.connect() as connection:
        jobs = connection.execute(
            text(
                "SELECT id, extract(epoch FROM scheduled_at)::float AS due,"
                f" extract(epoch FROM finalized_at)::float AS ended FROM {schema}.river_job"
                " WHERE kind IN ('ordinary', 'quick') AND state = 'completed'"
                " AND (args->>'number')::int >= 0"
            )
        ).all()
        twice = connection.execute(
            text(
                f"SELECT id, attempt, metadata FROM {schema}.river_job"
                " WHERE kind IN ('ordinary', 'quick') AND attempt > 2"
            )
        ).all()
    assert len(jobs) == ORDINARY
    assert not twice
    assert len(evil_ids) >= len(evils)
    late = [
        (round(job.ended - job.due, 1), round(stalls.between(job.due, job.ended), 1), job.id)
        for job in jobs
        if job.ended - job.due >= LATE_S + stalls.between(job.due, job.ended)
    ]
    assert not late, f"{len(late)} are late (s, of which the machine stood still, id): {late[:20]}"


def feed(inserter: Client, engine: Engine, evils: dict[str, object]) -> list[int]:
    """Insert ordinary jobs evenly, and one harmful job each second; return the latter's ids."""
    names = cycle(evils)
    each_s = max(LASTS_S / (ORDINARY / 100), 0.01)
    evil_s = min(1.0, LASTS_S / len(evils))
    queues = cycle(QUEUES)
    ids: list[int] = []
    began = time.monotonic()
    for number in range(0, ORDINARY, 100):
        at = began + number / 100 * each_s
        threading.Event().wait(max(0.0, at - time.monotonic()))
        jobs: list[Any] = [
            (
                Quick(number + n) if n % 4 == 0 else Ordinary(number + n),
                InsertOpts(queue=next(queues)),
            )
            for n in range(100)
        ]
        inserter.insert_many(engine, jobs)
        while len(ids) * evil_s <= time.monotonic() - began and (LONG or len(ids) < len(evils)):
            opts = InsertOpts(queue=next(queues), max_attempts=1)
            ids.append(inserter.insert(engine, evils[next(names)], opts).job.id)
    while len(ids) < len(evils):
        threading.Event().wait(evil_s)
        opts = InsertOpts(queue=next(queues), max_attempts=1)
        ids.append(inserter.insert(engine, evils[next(names)], opts).job.id)
    return ids


def unfinished(engine: Engine, schema: str, kinds: tuple[str, ...]) -> int:
    """Return how many jobs of these kinds are not final, except those whose args do not fit."""
    statement = text(
        f"SELECT count(*) FROM {schema}.river_job WHERE kind = ANY(:kinds) AND finalized_at IS NULL"
    )
    with engine.connect() as connection:
        return int(connection.execute(statement, {"kinds": list(kinds)}).scalar_one())


def unrecorded(engine: Engine, schema: str, client: Client) -> list[Any]:
    """Return the harmful jobs that are neither final nor known to the client as given up."""
    statement = text(
        f"SELECT id, args->>'how' AS how, state, attempt, errors FROM {schema}.river_job"
        " WHERE finalized_at IS NULL ORDER BY id"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement)]

"""Runs a benchmark, from an empty queue to the figures, and always cleans up."""

import gc
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import attrs
from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.schema import CreateSchema, DropSchema

from riverrun import Client, InsertOpts
from riverrun.bench.settings import Settings
from riverrun.bench.work import Bench, NoOp, PickUp
from riverrun.db.engines import engine_at
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.models import Job, Queue

LINE_S = 2.0
BATCH = 5_000
WAITING_MIN = 75_000
"""Minimum number of waiting jobs in a continuous run. Source of both: River 0.51, riverbench."""

PICKUPS = 50
PAUSE_S = 0.02
LOOK_S = 0.02
COUNT_S = 0.2

Show = Callable[[str], None]


class WorkedWrongly(Exception):
    """The jobs were not each worked once, so the figures would mean nothing."""


@attrs.frozen(kw_only=True)
class Result:
    """The result of a benchmark.

    Attributes:
        jobs_per_second: Completed jobs per second, from the first claim to the last completion.
        pickup_p50_ms: The median time from the commit of a job inserted at idle until its worker
            began, in milliseconds; None if the benchmark was stopped before.
        pickup_p99_ms: The 99th percentile of the same.
        inserted: Jobs inserted for the drain.
        worked: Completed jobs of these.
        seconds: The seconds from the first claim to the last completion.
        settings: The settings of the workers.
        versions: The versions of Python, PostgreSQL and the packages.
    """

    jobs_per_second: float
    pickup_p50_ms: float | None
    pickup_p99_ms: float | None
    inserted: int
    worked: int
    seconds: float
    settings: dict[str, Any]
    versions: dict[str, str]


def bench(
    settings: Settings,
    *,
    jobs: int | None,
    duration_s: float | None,
    processes: int,
    stop: threading.Event,
    show: Show,
) -> Result:
    """Insert jobs, work them, and return the figures.

    Args:
        settings: The settings of the workers. The schema must have River's tables.
        jobs: How many jobs to insert and then work; None to insert and work until stopped.
        duration_s: Seconds after which a continuous run ends; None for no end.
        processes: How many processes work. One means this process.
        stop: Set it to end the benchmark early.
        show: Called with a line of progress every two seconds.

    Raises:
        WorkedWrongly: If a job was worked twice or not at all.
    """
    engine = settings.engine()
    # The queue is worked, by another client, so its name needs no warning.
    client = Client(engine, schema=settings.schema, queues=[settings.queue])
    settings.apply()
    try:
        inserted = 0
        if jobs is not None:
            inserted = _insert(client, settings, jobs, stop)
            show(f"inserted {inserted:,} jobs")
        with crew_of(settings, processes, elsewhere=processes > 1) as crew:
            watch = _Watch(engine, settings, show)
            if jobs is None:
                end = time.monotonic() + (duration_s or math.inf)
                while not stop.is_set() and time.monotonic() < end:
                    crew.check()
                    lacking = WAITING_MIN - watch.waiting()
                    if lacking > 0:
                        # Insert one batch at most, so that progress is shown in time.
                        inserted += _insert(client, settings, min(lacking, BATCH), stop)
                    watch.look(inserted)
                    # Counting loads the server, and 75,000 jobs last longer than this pause.
                    stop.wait(0 if lacking > BATCH else COUNT_S)
            while watch.unfinished() and not stop.is_set():
                crew.check()
                watch.look(inserted)
                stop.wait(LOOK_S)
            pickups = pick_ups(client, engine, settings, stop)
        completed, seconds, tries = watch.drained()
        whole = not stop.is_set()
        if whole and not completed == inserted == crew.worked == tries:
            raise WorkedWrongly(
                f"{inserted} inserted, {crew.worked} worked, {completed} completed, {tries} tries"
            )
        return Result(
            jobs_per_second=round(completed / seconds, 1) if seconds else 0.0,
            pickup_p50_ms=percentile(pickups, 50) if pickups else None,
            pickup_p99_ms=percentile(pickups, 99) if pickups else None,
            inserted=inserted,
            worked=completed,
            seconds=round(seconds, 3),
            settings={
                "max_workers": settings.max_workers,
                "claim_ahead": settings.claim_ahead,
                "gc_threshold": settings.gc_threshold or gc.get_threshold()[0],
                "processes": processes,
                "jobs": jobs,
            },
            versions=versions(engine),
        )
    finally:
        client.flush_announcements()
        engine.dispose()


@contextmanager
def place(url: str, schema: str | None) -> Iterator[tuple[str | None, str]]:
    """Yield a schema and a queue for the benchmark; remove its schema or its rows afterwards.

    Args:
        url: The URL of the database.
        schema: A schema with River's tables. Default: a temporary one.
    """
    name = f"riverrun_bench_{os.getpid()}"
    engine = engine_at(url)
    try:
        if schema is None:
            with engine.begin() as connection:
                connection.execute(CreateSchema(name))
                migrate(connection, schema=name)
            try:
                yield name, name
            finally:
                with engine.begin() as connection:
                    connection.execute(DropSchema(name, cascade=True))
        else:
            options = {"schema_translate_map": {None: schema}}
            try:
                yield schema, name
            finally:
                with engine.begin() as connection:
                    own = connection.execution_options(**options)
                    own.execute(delete(Job).where(Job.queue == name))
                    own.execute(delete(Queue).where(Queue.name == name))
    finally:
        engine.dispose()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of `values` do not exceed."""
    return round(sorted(values)[math.ceil(len(values) * percent / 100) - 1], 3)


def versions(engine: Engine) -> dict[str, str]:
    """Return the versions of Python, PostgreSQL and the packages."""
    with engine.connect() as connection:
        server = str(connection.execute(text("SHOW server_version")).scalar_one())
    names = ("riverrun", "sqlalchemy", "psycopg")
    return {
        "python": platform.python_version(),
        "postgresql": server,
        **{name: importlib.metadata.version(name) for name in names},
    }


def _insert(client: Client, settings: Settings, count: int, stop: threading.Event) -> int:
    inserted = 0
    opts = InsertOpts(queue=settings.queue)
    while inserted < count and not stop.is_set():
        size = min(BATCH, count - inserted)
        batch = [(NoOp(n), opts) for n in range(inserted, inserted + size)]
        inserted += client.insert_many_fast(client.engine, batch)
    return inserted


def pick_ups(
    client: Client,
    engine: Engine,
    settings: Settings,
    stop: threading.Event,
    *,
    count: int = PICKUPS,
    pause_s: float = PAUSE_S,
) -> list[float]:
    """Insert jobs one by one at idle; return the milliseconds from each commit to its worker."""
    committed: dict[int, int] = {}
    opts = InsertOpts(queue=settings.queue)
    for number in range(count):
        if stop.wait(pause_s):
            break
        with engine.connect() as connection:
            job_id = client.insert(connection, PickUp(number), opts).job.id
            connection.commit()
            committed[job_id] = time.monotonic_ns()
    options = {"schema_translate_map": {None: settings.schema}}
    started: dict[int, int] = {}
    deadline = time.monotonic() + 10
    while len(started) < len(committed) and time.monotonic() < deadline and not stop.wait(LOOK_S):
        statement = select(Job.id, Job.metadata_["output"].label("at")).where(
            Job.kind == PickUp.kind,
            Job.queue == settings.queue,
            Job.state == JobState.completed,
        )
        with engine.connect() as connection:
            rows = connection.execution_options(**options).execute(statement)
            started = {row.id: int(row.at) for row in rows}
    # A worker may start before the answer to the commit arrives here: count that as 0.
    return [
        max(0, started[job_id] - at) / 1e6 for job_id, at in committed.items() if job_id in started
    ]


class _Watch:
    """Reads the state of the benchmark's queue, and shows progress."""

    def __init__(self, engine: Engine, settings: Settings, show: Show) -> None:
        self._engine = engine.execution_options(
            isolation_level="AUTOCOMMIT", schema_translate_map={None: settings.schema}
        )
        self._queue = settings.queue
        self._show = show
        self._shown_at = time.monotonic()
        self._shown = 0

    def unfinished(self) -> bool:
        """Return whether jobs wait or run."""
        states = (JobState.available, JobState.running, JobState.retryable)
        return any(
            self._scalar(select(Job.id).where(self._own(state)).limit(1)) for state in states
        )

    def waiting(self) -> int:
        """Return how many jobs wait."""
        return int(self._scalar(select(func.count()).where(self._own(JobState.available))) or 0)

    def look(self, inserted: int) -> None:
        """Show progress, if two seconds have passed since the last time."""
        now = time.monotonic()
        if now - self._shown_at < LINE_S:
            return
        worked = int(self._scalar(select(func.count()).where(self._own(JobState.completed))) or 0)
        rate = (worked - self._shown) / (now - self._shown_at)
        self._show(f"worked {worked:,} of {inserted:,} inserted, {rate:,.0f} jobs/s")
        self._shown, self._shown_at = worked, now

    def drained(self) -> tuple[int, float, int]:
        """Return the number of completed jobs, the seconds they took, and their attempts."""
        seconds = func.extract("epoch", func.max(Job.finalized_at) - func.min(Job.attempted_at))
        statement = select(func.count(), seconds, func.sum(Job.attempt)).where(
            self._own(JobState.completed)
        )
        with self._engine.connect() as connection:
            count, took_s, tries = connection.execute(statement).one()
        return count, float(took_s or 0), int(tries or 0)

    def _own(self, state: JobState) -> Any:
        return (Job.queue == self._queue) & (Job.state == state) & (Job.kind == NoOp.kind)

    def _scalar(self, statement: Any) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(statement).scalar()


def crew_of(settings: Settings, processes: int, *, elsewhere: bool) -> "Here | Elsewhere":
    """Return the workers: this process, or `processes` others that do nothing else."""
    if not elsewhere:
        return Here(settings)
    command = [sys.executable, "-m", "riverrun.bench.work"]
    return Elsewhere(command, settings.environment(), processes)


class Here:
    """A client in this process works the jobs."""

    def __init__(self, settings: Settings) -> None:
        self._bench = Bench(settings)
        self.client = self._bench.client
        self.worked = 0

    def __enter__(self) -> Self:
        self.client.start()
        return self

    def check(self) -> None:
        """Do nothing: this process is alive."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.stop()
        self.worked = self._bench.worked()
        self.client.engine.dispose()


class Elsewhere:
    """Other processes, which do nothing else, work the jobs.

    Args:
        command: The command of a process. It prints "ready", works once it reads a line, and prints
            how many jobs it has worked when its input ends.
        environment: The environment of the processes, with their settings.
        processes: How many processes.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], processes: int = 1
    ) -> None:
        self._command = command
        self._environment = environment
        self._processes = processes
        self._children: list[subprocess.Popen[str]] = []
        self.worked = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _ in range(self._processes):
                child = subprocess.Popen(  # noqa: S603  a command of this program's own
                    self._command,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,  # Ctrl-C must reach this process alone; it ends them.
                )
                stack.callback(child.kill)
                self._children.append(child)
            for child in self._children:
                if _pipe(child.stdout).readline() != "ready\n":
                    raise WorkedWrongly("a worker process did not start; see its stderr")
            stack.pop_all()
        for child in self._children:
            _pipe(child.stdin).write("go\n")
            _pipe(child.stdin).flush()
        return self

    def check(self) -> None:
        """Check that all processes live, or we might wait for jobs that no process works.

        Raises:
            WorkedWrongly: If a process has ended.
        """
        for child in self._children:
            if (code := child.poll()) is not None:
                raise WorkedWrongly(f"worker process {child.pid} ended with {code}")

    def pids(self) -> list[int]:
        """Return the ids of the processes."""
        return [child.pid for child in self._children]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._children:
            output, _ = child.communicate()
            self.worked += int(output or 0)


def _pipe(pipe: Any) -> Any:
    assert pipe is not None  # noqa: S101  Popen was given PIPE
    return pipe

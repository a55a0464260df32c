"""A benchmark from an empty queue to the figures; whatever happens, nothing is left behind."""

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
"""Jobs that wait at least in a continuous run. Source of both: River 0.51, riverbench."""

PICKUPS = 50
PAUSE_S = 0.02
LOOK_S = 0.02
COUNT_S = 0.2

Show = Callable[[str], None]


class WorkedWrongly(Exception):
    """The benchmark's jobs were not each worked once; its figures would be worth nothing."""


@attrs.frozen(kw_only=True)
class Result:
    """What a benchmark came to.

    Attributes:
        jobs_per_second: Jobs completed, by the seconds from the first claim to the last completion.
        pickup_p50_ms: Half of the jobs inserted at idle began within so many milliseconds of the
            commit; None if it was stopped before.
        pickup_p99_ms: The same for all but one in a hundred.
        inserted: Jobs inserted for the drain.
        worked: Those that were worked.
        seconds: From the first claim to the last completion.
        settings: How they were worked.
        versions: Of what took part.
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
    """Insert jobs, have them worked, and return the figures.

    Args:
        settings: How; their schema has River's tables.
        jobs: How many to insert and drain; None to insert and work at once, until stopped.
        duration_s: Seconds after which a continuous run ends.
        processes: How many work; one is this process itself.
        stop: Set to end it early.
        show: Told, every two seconds, how far it is.

    Raises:
        WorkedWrongly: If a job was worked twice or not at all.
    """
    engine = settings.engine()
    client = Client(engine, schema=settings.schema)
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
                        # Not more than a batch at once: it shall be told of in time.
                        inserted += _insert(client, settings, min(lacking, BATCH), stop)
                    watch.look(inserted)
                    # Counting is the server's work; 75,000 last longer than this.
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
    """Yield a schema and a queue for a benchmark alone; its tables, or its rows, are removed after.

    Args:
        url: The database.
        schema: A schema with River's tables; one that is made for the while if None.
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
    """Return the versions of what takes part."""
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
    """Return the milliseconds from commit to first line, for jobs that come one by one at idle."""
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
    begun: dict[int, int] = {}
    deadline = time.monotonic() + 10
    while len(begun) < len(committed) and time.monotonic() < deadline and not stop.wait(LOOK_S):
        statement = select(Job.id, Job.metadata_["output"].label("at")).where(
            Job.kind == PickUp.kind,
            Job.queue == settings.queue,
            Job.state == JobState.completed,
        )
        with engine.connect() as connection:
            rows = connection.execution_options(**options).execute(statement)
            begun = {row.id: int(row.at) for row in rows}
    # Begun before the commit's answer came: no time at all.
    return [max(0, begun[job_id] - at) / 1e6 for job_id, at in committed.items() if job_id in begun]


class _Watch:
    """Looks at the queue, and tells how far it is."""

    def __init__(self, engine: Engine, settings: Settings, show: Show) -> None:
        self._engine = engine.execution_options(
            isolation_level="AUTOCOMMIT", schema_translate_map={None: settings.schema}
        )
        self._queue = settings.queue
        self._show = show
        self._told_at = time.monotonic()
        self._told = 0

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
        """Show how far it is, if two seconds have passed."""
        now = time.monotonic()
        if now - self._told_at < LINE_S:
            return
        worked = int(self._scalar(select(func.count()).where(self._own(JobState.completed))) or 0)
        rate = (worked - self._told) / (now - self._told_at)
        self._show(f"worked {worked:,} of {inserted:,} inserted, {rate:,.0f} jobs/s")
        self._told, self._told_at = worked, now

    def drained(self) -> tuple[int, float, int]:
        """Return how many jobs were completed, within how many seconds, in how many attempts."""
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
    """Return who works: this process, or so many that do nothing else."""
    if not elsewhere:
        return Here(settings)
    command = [sys.executable, "-m", "riverrun.bench.work"]
    return Elsewhere(command, settings.environment(), processes)


class Here:
    """This process works."""

    def __init__(self, settings: Settings) -> None:
        self._bench = Bench(settings)
        self.client = self._bench.client
        self.worked = 0

    def __enter__(self) -> Self:
        self.client.start()
        return self

    def check(self) -> None:
        """Do nothing: this process is there."""

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
    """Processes work that do nothing else.

    Args:
        command: What to start. It says "ready", works when a line comes, and, when its input ends,
            says how many jobs it has worked.
        environment: What it is told.
        processes: How many of it.
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
                    start_new_session=True,  # Ctrl-C is for this process, which ends them.
                )
                stack.callback(child.kill)
                self._children.append(child)
            for child in self._children:
                if _pipe(child.stdout).readline() != "ready\n":
                    raise WorkedWrongly("a worker process did not start; its stderr says why")
            stack.pop_all()
        for child in self._children:
            _pipe(child.stdin).write("go\n")
            _pipe(child.stdin).flush()
        return self

    def check(self) -> None:
        """Make sure that all processes are there, or nobody might work what is waited for.

        Raises:
            WorkedWrongly: If one has ended.
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
            said, _ = child.communicate()
            self.worked += int(said or 0)


def _pipe(pipe: Any) -> Any:
    assert pipe is not None  # noqa: S101  Popen was asked for it
    return pipe

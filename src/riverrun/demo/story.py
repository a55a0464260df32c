"""Runs the demo, from an empty database to the verdict, and always cleans up."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from types import FrameType
from typing import TypeVar

import attrs
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.schema import CreateSchema, DropSchema

from riverrun import JobState
from riverrun.db.urls import psycopg_url
from riverrun.demo.audit import JOBS_PER_CLICK, Verdict, audit
from riverrun.demo.browsers import Answer, Browsers, Click, plan
from riverrun.demo.evidence import gather
from riverrun.demo.processes import Process
from riverrun.demo.settings import Settings
from riverrun.demo.tables import Base
from riverrun.embedded import Cluster
from riverrun.migrations import migrate
from riverrun.models import Job

START_TIMEOUT_S = 30.0
WORK_TIMEOUT_S = 120.0
TURN_S = 0.1
KILL_LOOKS, KILL_LOOK_S = 100, 0.005
SENT_S = 0.1
WORK = ("-m", "riverrun", "work", "riverrun.demo.work:client", "--log-level", "warning")
"""The arguments of a worker's process."""

T = TypeVar("T")
Show = Callable[[str, bool], None]
"""A function that shows a line. The second argument is whether the next line may replace it."""


class Interrupted(Exception):
    """A signal interrupted the demo."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def play(*, signups: int, database_url: str | None, show: Show) -> Verdict:
    """Run the demo and return its verdict.

    Args:
        signups: How many people sign up.
        database_url: A PostgreSQL database to make a temporary schema in. Default: a temporary
            server.
        show: Called with lines that report progress.

    Raises:
        Interrupted: If SIGINT or SIGTERM arrived; everything is cleaned up.
        PartFailed: If a process of the demo failed.
        UnsupportedDatabase: If `database_url` is not a PostgreSQL URL.
        riverrun.embedded.PostgresNotFound: If there is no PostgreSQL.
    """
    start_s = time.monotonic()
    with signals() as stop, ground(database_url, stop, show) as settings:
        answers, killed_at = _run(settings, signups, stop, show)
        return audit(gather(settings, answers, killed_at), seconds=time.monotonic() - start_s)


@contextmanager
def ground(database_url: str | None, stop: "Stop", show: Show) -> Iterator[Settings]:
    """Yield settings with a schema and a folder of the demo's own, and remove both at the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="riverrun-demo-"))
        url = database_url
        if url is None:
            show("starting a PostgreSQL of our own", False)
            url = stop.or_go_on(
                lambda: stack.enter_context(Cluster()).create_database("riverrun_demo")
            )
        settings = Settings(
            url=psycopg_url(url).render_as_string(hide_password=False),
            schema=f"riverrun_demo_{os.getpid()}",
            folder=folder,
        )
        stop.or_go_on(lambda: stack.enter_context(schema(settings)))
        yield settings


class Stop:
    """A request to stop, by a signal. The handler only notes it; waiting raises it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._number = 0

    def handle(self, number: int, _: FrameType | None) -> None:
        """Note that the signal arrived."""
        self._number = number
        self._event.set()

    def wait(self, timeout_s: float) -> None:
        """Wait `timeout_s` seconds.

        Raises:
            Interrupted: If a signal arrives, or has arrived.
        """
        if self._event.wait(timeout_s):
            raise Interrupted(self._number)

    def or_go_on(self, step: Callable[[], T]) -> T:
        """Return what `step` returns; if a signal arrived meanwhile, raise Interrupted instead.

        A terminal sends Ctrl-C to child processes such as initdb too, so `step` may fail then.
        """
        try:
            return step()
        finally:
            self.wait(0)


@contextmanager
def signals() -> Iterator[Stop]:
    """Yield a Stop that handles SIGINT and SIGTERM; restore the handlers afterwards."""
    stop = Stop()
    before = {
        number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def schema(settings: Settings) -> Iterator[None]:
    """Create a schema with River's tables and the host's; drop it at the end."""
    engine = create_engine(settings.url)
    try:
        with engine.begin() as connection:
            connection.execute(CreateSchema(settings.schema))
            migrate(connection, schema=settings.schema)
            options = {"schema_translate_map": {None: settings.schema}}
            Base.metadata.create_all(connection.execution_options(**options))
        try:
            yield
        finally:
            with engine.begin() as connection:
                connection.execute(DropSchema(settings.schema, cascade=True))
    finally:
        engine.dispose()


def _run(
    settings: Settings, signups: int, stop: Stop, show: Show
) -> tuple[Sequence[Answer], datetime | None]:
    clicks = plan(signups)
    # They end in reverse order, the world last, so that it records everything.
    with ExitStack() as stack:
        cast = start(settings, stack, stop, show)
        with Browsers(clicks, cast.port) as browsers:
            others = [cast.world, cast.service]
            killed_at = _watch(settings, clicks, browsers, others, cast.workers, stop, show)
        for process in (*cast.workers, cast.service, cast.world):
            process.terminate()
            process.join()
        return list(browsers.answers), killed_at


@attrs.frozen(kw_only=True)
class Cast:
    """The processes of the demo.

    Attributes:
        settings: Their settings, with the ports of the world.
        world: The mail server and the CRM.
        service: The sign-up service.
        workers: The workers.
        port: The port of the service.
    """

    settings: Settings
    world: Process
    service: Process
    workers: list[Process]
    port: int


def start(settings: Settings, stack: ExitStack, stop: Stop, show: Show) -> Cast:
    """Start the processes, which `stack` ends in reverse order; return them when they are ready."""
    settings.path("invoices").mkdir()
    for name in ("mails", "renderings", "crm"):
        settings.path(name).touch()
    show("starting the sign-up service, the world and two workers", False)
    own = attrs.evolve(settings, name="world")
    world = stack.enter_context(Process(own, ("-m", "riverrun.demo.world")))
    own = attrs.evolve(settings, name="signup")
    service = stack.enter_context(Process(own, ("-m", "riverrun.demo.signup")))
    smtp_port, crm_port = _ports(world, stop)
    settings = attrs.evolve(settings, smtp_port=smtp_port, crm_port=crm_port)
    workers: list[Process] = []
    for number in (1, 2):
        own = attrs.evolve(settings, name=f"worker-{number}")
        workers.append(stack.enter_context(Process(own, WORK)))
    (port,) = _ports(service, stop)
    for worker in workers:
        _ports(worker, stop)  # Wait: a worker that still imports slows the service down.
    return Cast(settings=settings, world=world, service=service, workers=workers, port=port)


def _watch(
    settings: Settings,
    clicks: Sequence[Click],
    browsers: Browsers,
    others: Sequence[Process],
    workers: Sequence[Process],
    stop: Stop,
    show: Show,
) -> datetime | None:
    expected = JOBS_PER_CLICK * len({click.email for click in clicks if not click.refused})
    engine = settings.engine()
    deadline_s = time.monotonic() + WORK_TIMEOUT_S
    killed_at = None
    try:
        while True:
            for process in (*others, *workers):
                process.check()
            check_answers(list(browsers.answers), others[-1])
            answered = len(browsers.answers)
            with engine.connect() as connection:
                rows = connection.execute(select(Job.state, func.count()).group_by(Job.state))
                counts = dict(rows.tuples().all())
            final = sum(count for state, count in counts.items() if state.is_final)
            show(
                f"{answered} of {len(clicks)} requests answered, {final} of {expected} jobs done",
                True,
            )
            # Try from early on: not every try meets the worker at work, and jobs must be left.
            if final * 4 >= expected and killed_at is None:
                killed_at = _kill(workers[0], engine, stop)
                if killed_at is not None:
                    show(f"a part of it is done: SIGKILL to {workers[0].name}, at work", False)
            if browsers.done and final == sum(counts.values()):
                show(f"all done: {answered} requests answered, {final} jobs", False)
                return killed_at
            if time.monotonic() > deadline_s:
                # The audit reports which.
                show(f"gave up after {WORK_TIMEOUT_S:g} s; jobs are left: {counts}", False)
                return killed_at
            stop.wait(TURN_S)
    finally:
        engine.dispose()


def _kill(worker: Process, engine: Engine, stop: Stop) -> datetime | None:
    """Kill `worker` as soon as it runs jobs; return when, by the database's clock.

    This looks many times in a row, because its jobs are short. Return None if it ran no job.
    """
    at_work = select(func.count()).where(
        Job.state == JobState.running,
        # Compare the last client only: another one may run a job that this one has failed.
        Job.attempted_by[func.cardinality(Job.attempted_by)] == worker.name,
    )
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:

        def still_at_work() -> bool:
            # Statements sent before the process was stopped are done by then, so no completion is
            # under way.
            stop.wait(SENT_S)
            return bool(connection.scalar(at_work))

        for _ in range(KILL_LOOKS):
            # Stop the process only if it seems to run jobs.
            if connection.scalar(at_work) and worker.kill_if(still_at_work):
                at: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
                return at
            stop.wait(KILL_LOOK_S)
    return None


def check_answers(answers: Iterable[Answer], service: Process) -> None:
    """Raise if the service has answered with an error.

    Raises:
        PartFailed: With the end of its stderr.
    """
    for answer in answers:
        if answer.status not in {201, 409}:
            raise service.failed(f"answered {answer.status} {answer.problem}".rstrip())


def _ports(process: Process, stop: Stop) -> list[int]:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while (ports := process.ready()) is None:
        process.check()
        if time.monotonic() > deadline_s:
            raise process.failed(f"was not ready after {START_TIMEOUT_S:g} s")
        stop.wait(0.02)
    return ports

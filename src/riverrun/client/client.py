"""Client: the one door. It inserts jobs, and works them; its crew does the work."""

import asyncio
import logging
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack
from weakref import WeakSet

from sqlalchemy import URL, Engine
from sqlalchemy.orm import sessionmaker

from riverrun.client.crew import Crew, Settings
from riverrun.client.inserter import Inserter, Notify
from riverrun.client.launcher import Launcher
from riverrun.client.queues import Queues, check_queues
from riverrun.client.set_based import SetBased
from riverrun.clock import Clock, Duration
from riverrun.config import QueueConfig
from riverrun.db.async_sessions import AsyncTx, run_in
from riverrun.db.engines import address, check_pool, engine_at, notice_dead_peers, renew_after_fork
from riverrun.db.statement_timeout import SINGLE
from riverrun.db.transactions import Tx
from riverrun.errors import (
    ClientNotReady,
    InvalidOption,
    NotATransaction,
    StopTimeout,
    UnsupportedDatabase,
)
from riverrun.events import Event, Hub, Subscription
from riverrun.execution.handlers import ErrorHandler, JobStuckHandler
from riverrun.execution.plugins import Plugin, check_plugins, in_processes
from riverrun.execution.workers import Executor, Workers
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.checks import check_duration, check_int, check_schema
from riverrun.jobs.listing import JobList, JobListParams
from riverrun.jobs.options import InsertOptions, InsertOpts, with_options
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.logs.errors import log_error
from riverrun.periodic_jobs import PeriodicJob, PeriodicJobs
from riverrun.policies.backoff import Backoff, RiverBackoff
from riverrun.policies.schedule import Cron, Schedule
from riverrun.verbs import cancel, delete, delete_many, get, list_jobs, retry, update
from riverrun.verbs.elect import request_resign
from riverrun.verbs.insert import InsertResult
from riverrun.verbs.reindex import INDEXES

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import async_sessionmaker

logger = logging.getLogger("riverrun.client")  # as operators name it, in filters and levels


DEFAULT_JOB_TIMEOUT_S = 60.0


_MIDNIGHT = Cron("@midnight")


EXIT_S = 30.0
"""Seconds that running jobs have when the process ends without a stop, where the client has no
`soft_stop_timeout`."""


class Client(SetBased):
    """Inserts jobs in the caller's transactions and, if it has workers, works them.

    Args:
        engine: A SQLAlchemy Engine on PostgreSQL with psycopg 3.
        workers: Who works what; None for a client that only inserts.
        queues: The queues to work: by name a QueueConfig or its number of slots, or the names
            alone; None for a client that only inserts.
        schema: The schema of River's tables; the search path's unless said.
        id: Names this client in `attempted_by`, at most 100 characters; host and time unless said.
            Where another client of that name lives, or was killed just now and its jobs are not
            rescued yet, the client gets a suffix when it starts.
        notify: When workers are told of inserted jobs.
        poll_only: Whether to listen to nothing, as behind PgBouncer: jobs are found by polling.
        listen_engine: Where `engine` leads through PgBouncer, an engine that leads past it to the
            same database: for the one connection that listens, and for rebuilding indexes.
        poll_interval: Seconds or a timedelta between looks when no notification comes.
        job_timeout: Seconds or a timedelta an attempt may take, where its worker does not say; 0
            for no limit.
        soft_stop_timeout: Seconds or a timedelta that a stop waits for running jobs before it
            cancels them; None for as long as they take.
        hard_stop_timeout: Seconds or a timedelta that cancelled jobs then have to end.
        processes: How many processes work jobs whose workers ask for one; one for each processor
            unless said.
        job_stuck_threshold: Seconds or a timedelta that an attempt which shall end may go on
            before it counts as stuck.
        job_stuck_handler: Called with a job that is stuck; may return
            `JobStuckHandlerResult(add_worker_slot=True)`.
        backoff: When a failed job may be claimed again, where its worker does not say.
        leader_election_disabled: Whether the client never leads: it works jobs, and leaves
            maintenance and periodic jobs to others.
        periodic_jobs: What recurs; whichever client leads inserts its own, so give all the same.
        plugins: What takes part in every insert and attempt, the outermost first.
        error_handler: Called with the job and the error when an attempt has failed; may return
            `ErrorHandlerResult(set_cancelled=True)`.
        max_attempts: Tries of a job for which nobody said it.
        rescue_after: Seconds or a timedelta after which a running job of a client without
            heartbeats, such as River's, is taken for lost. Our own are rescued within 30 s of
            their client's death, and never while it lives; so that River's leader agrees, they
            renew their attempt time six times in that while. Where Go clients set their
            RescueStuckJobsAfter, set the same here.
        cancelled_retention: Seconds or a timedelta to keep cancelled jobs; None for ever.
        completed_retention: The same for completed jobs.
        discarded_retention: The same for discarded jobs.
        reindexer_index_names: Those; all that bloat unless said.
        reindexer_schedule: When the leader rebuilds the job table's indexes; None for never.
        reindexer_timeout: Seconds or a timedelta that one index may take; 0 for no limit.
        sessionmaker: Makes the sessions that workers take as a parameter, with its class, options
            and binds, on the client's database. Default: SQLAlchemy's Session.
        async_sessionmaker: The same for AsyncSessions. Its `bind`, an AsyncEngine, is used only by
            the client's event loop. Default: AsyncSession, on an AsyncEngine of the client's own
            that connects as `engine` does.
        skip_unknown_job_check: Whether a client with workers may insert kinds it has none for.
        clock: The process's clock; tests pass another.
        rng: Where jitter comes from; tests pass a seeded one.

    Raises:
        InvalidOption: If an option is out of range.
        UnsupportedDatabase: If the engine is none that riverrun can work with.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        workers: Workers | None = None,
        queues: Mapping[str, QueueConfig | int] | Sequence[str] | AbstractSet[str] | None = None,
        schema: str | None = None,
        id: str | None = None,  # noqa: A002  River's name for it
        notify: Notify | str = Notify.after_commit,
        poll_only: bool = False,
        listen_engine: Engine | None = None,
        poll_interval: Duration = 1.0,
        job_timeout: Duration = DEFAULT_JOB_TIMEOUT_S,
        soft_stop_timeout: Duration | None = None,
        hard_stop_timeout: Duration = 10.0,
        processes: int | None = None,
        job_stuck_threshold: Duration = 10.0,
        job_stuck_handler: JobStuckHandler | None = None,
        backoff: Backoff | None = None,
        leader_election_disabled: bool = False,
        periodic_jobs: Iterable[PeriodicJob] = (),
        plugins: Sequence[Plugin] = (),
        error_handler: ErrorHandler | None = None,
        max_attempts: int = 25,
        rescue_after: Duration = 3600.0,
        cancelled_retention: Duration | None = 86_400.0,
        completed_retention: Duration | None = 86_400.0,
        discarded_retention: Duration | None = 7 * 86_400.0,
        reindexer_index_names: Sequence[str] = INDEXES,
        reindexer_schedule: Schedule | None = _MIDNIGHT,
        reindexer_timeout: Duration = 60.0,
        sessionmaker: "sessionmaker[Any] | None" = None,
        async_sessionmaker: "async_sessionmaker[Any] | None" = None,
        skip_unknown_job_check: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check_engine(engine)
        for name, value in (
            ("backoff", backoff),
            ("error_handler", error_handler),
            ("job_stuck_handler", job_stuck_handler),
            ("reindexer_schedule", reindexer_schedule),
        ):
            _check_function(name, value)
        renew_after_fork(engine)
        notice_dead_peers(engine)
        self.engine = engine
        self.schema = check_schema(schema)
        self.workers = _check_workers(workers)
        self._own_id = id is None
        self.id = _default_id() if id is None else _check_id(id)
        self._poll_only = poll_only
        self._listen_engine = _check_listen_engine(listen_engine, poll_only=poll_only) or engine
        self._poll_interval_s = check_duration("poll_interval", poll_interval, 0.01)
        self._job_timeout_s = check_duration("job_timeout", job_timeout, 0.0)
        self._soft_stop_timeout_s = (
            None
            if soft_stop_timeout is None
            else check_duration("soft_stop_timeout", soft_stop_timeout, 0.0)
        )
        self._hard_stop_timeout_s = check_duration("hard_stop_timeout", hard_stop_timeout, 0.0)
        self._processes = check_int("processes", processes or os.cpu_count() or 1, 1, 1_000)
        self._job_stuck_threshold_s = check_duration(
            "job_stuck_threshold", job_stuck_threshold, 0.0
        )
        self._job_stuck_handler = job_stuck_handler
        self._backoff = backoff or RiverBackoff()
        self._plugins = check_plugins(plugins)
        self._error_handler = error_handler
        self._max_attempts = check_int("max_attempts", max_attempts, 1, 32_767)
        self._rescue_after_s = check_duration("rescue_after", rescue_after, 1.0)
        self._retention_s = {
            state: None if kept is None else check_duration(f"{state}_retention", kept, 0.0)
            for state, kept in (
                ("cancelled", cancelled_retention),
                ("completed", completed_retention),
                ("discarded", discarded_retention),
            )
        }
        self._leader_election_disabled = leader_election_disabled
        self._reindexer_index_names = _check_names(reindexer_index_names)
        self._reindexer_schedule = reindexer_schedule
        self._reindexer_timeout_s = check_duration("reindexer_timeout", reindexer_timeout, 0.0)
        self._sessionmaker = _check_sessionmaker(sessionmaker)
        self._async_sessionmaker = _check_async_sessionmaker(async_sessionmaker)
        self._clock = clock or Clock()
        self._rng = rng or random.Random()
        self._hub = Hub()
        self._launcher = Launcher(check_queues({} if queues is None else queues))
        self.queues = Queues(
            self._launcher,
            soft_stop_timeout_s=self._soft_stop_timeout_s,
            schema=schema,
        )
        self.periodic_jobs = PeriodicJobs(
            periodic_jobs,
            on_change=self._wake_periodic,
            leader_election_disabled=leader_election_disabled,
        )
        # One statement a transaction needs no BEGIN and no COMMIT around it.
        self._autocommit = engine.execution_options(**{SINGLE: True})
        self._inserter = Inserter(
            engine,
            autocommit=self._autocommit,
            schema=schema,
            workers=workers,
            plugins=lambda: self._plugins,
            max_attempts=self._max_attempts,
            notify=_check_notify(notify),
            skip_unknown_job_check=skip_unknown_job_check,
            on_committed=self._wake,
            own_queues=self.queues,
            clock=self._clock,
        )
        _clients.add(self)

    @classmethod
    def from_url(cls, url: str | URL, **options: Any) -> Self:
        """Return a client with an engine of its own, on psycopg 3, at `url`.

        For applications whose own engine has another driver: their sessions insert jobs all the
        same.

        Args:
            url: Where the PostgreSQL is, in any spelling: `postgresql://`, `postgres://`, with the
                name of any driver, with several hosts as libpq has them, or as
                `host=... dbname=...`.
            **options: The options of `Client`.

        Raises:
            UnsupportedDatabase: If `url` is no such. The error does not repeat it.
            InvalidOption: If an option is out of range.
        """
        return cls(engine_at(url), **options)

    def insert(
        self,
        tx: Tx,
        args: AnyArgs,
        opts: InsertOpts | None = None,
        **options: Unpack[InsertOptions],
    ) -> InsertResult:
        """Insert one job in the caller's transaction: it runs if that commits, else never was.

        Args:
            tx: Whose transaction: a Session, scoped_session or Connection is joined; an Engine
                begins and commits one of its own.
            args: An object of a class with a kind.
            opts: How; what they leave open the args' own options and the client decide.
            **options: The same as keywords, such as `queue="mail", delay=60`; they win over `opts`.

        Raises:
            InvalidArgs: If their worker would not get the args as they are, or they are too large.
            InvalidOption: If an option is out of range.
            NotATransaction, TransactionClosed: If `tx` is no open transaction's.
            SchemaMissing: If the tables are not there.
            UnknownKind: If the client has workers, but none for the kind.
            WrongDatabase: If the transaction is on another database than the client's.
        """
        return self._inserter.insert(tx, args, with_options(opts, options))

    async def insert_async(
        self,
        tx: AsyncTx,
        args: AnyArgs,
        opts: InsertOpts | None = None,
        **options: Unpack[InsertOptions],
    ) -> InsertResult:
        """Insert one job from async code, as `insert`.

        Args:
            tx: Whose transaction: an AsyncSession, async_scoped_session or AsyncConnection is
                joined; an AsyncEngine begins and commits one of its own. Any driver will do.
            args: An object of a class with a kind.
            opts: How, as for `insert`.
            **options: The same as keywords, as for `insert`.

        Raises:
            RiverrunError: As for `insert`.
        """
        return await run_in(tx, self.insert, args, with_options(opts, options))

    async def insert_many_async(self, tx: AsyncTx, jobs: Iterable[object]) -> list[InsertResult]:
        """Insert jobs from async code, all or none, as `insert_many`.

        Args:
            tx: Whose transaction, as for `insert_async`.
            jobs: Args, or pairs of args and InsertOpts.

        Raises:
            RiverrunError: As for `insert_many`.
        """
        return await run_in(tx, self.insert_many, jobs)

    def insert_many(self, tx: Tx, jobs: Iterable[object]) -> list[InsertResult]:
        """Insert jobs in the caller's transaction; all, or, if one is refused, none.

        Args:
            tx: Whose transaction, as for `insert`.
            jobs: Args, or pairs of args and InsertOpts.

        Returns:
            A result for each job, in their order.

        Raises:
            InvalidOption: If there is no job, or an option is out of range.
            RiverrunError: As for `insert`.
        """
        return self._inserter.insert_many(tx, jobs)

    def insert_many_fast(self, tx: Tx, jobs: Iterable[object]) -> int:
        """Insert jobs as `insert_many` does, by COPY, and return only how many.

        Args:
            tx: Whose transaction, as for `insert`.
            jobs: Args, or pairs of args and InsertOpts.

        Raises:
            RiverrunError: As for `insert_many`.
        """
        return self._inserter.insert_many_fast(tx, jobs)

    def get(self, tx: Tx, job_id: int) -> JobRow:
        """Return the job with the id `job_id`; see `riverrun.verbs.get`."""
        return get(tx, job_id, schema=self.schema)

    def list_jobs(self, tx: Tx, params: JobListParams | None = None) -> JobList:
        """Return jobs by filters, in a stable order; see `riverrun.verbs.list_jobs`."""
        return list_jobs(tx, params, schema=self.schema)

    def update(
        self, tx: Tx, job_id: int, *, metadata: Mapping[str, Any], **output: object
    ) -> JobRow:
        """Merge metadata, and `output=` if given, into a job; see `riverrun.verbs.update`."""
        return update(tx, job_id, metadata=metadata, schema=self.schema, **output)

    def delete(self, tx: Tx, job_id: int) -> JobRow:
        """Delete a job that does not run; see `riverrun.verbs.delete`."""
        return delete(tx, job_id, schema=self.schema)

    def delete_many(
        self, tx: Tx, params: JobListParams, *, unsafe_all: bool = False
    ) -> list[JobRow]:
        """Delete jobs by filters, none that runs; see `riverrun.verbs.delete_many`."""
        return delete_many(tx, params, unsafe_all=unsafe_all, schema=self.schema)

    def cancel(self, tx: Tx, job_id: int) -> JobRow:
        """Cancel a job; one that runs is told to end. See `riverrun.verbs.cancel`."""
        job = cancel(tx, job_id, schema=self.schema, now=self._clock.database_now())
        crew = self._crew
        if crew is not None and job.state is JobState.running and isinstance(tx, Engine):
            crew.cancel(job.id)
        return job

    def retry(self, tx: Tx, job_id: int) -> JobRow:
        """Make a job available now; see `riverrun.verbs.retry`."""
        job = retry(tx, job_id, schema=self.schema, now=self._clock.database_now())
        if job.state is JobState.available:
            self._inserter.announce(tx, {job.queue})
        return job

    def subscribe(self, *kinds: type[Event]) -> Subscription:
        """Return a subscription to events of `kinds`, such as JobCompleted; to all if none.

        Of attempts, those that end from now on.
        """
        return self._hub.subscribe(*kinds)

    def listen(self, call: Callable[[Event], object], *kinds: type[Event]) -> None:
        """Have `call` called with each event of `kinds`, or with all, where it happens.

        Unlike a subscription it misses none; but the client waits for it, so it must be quick. What
        it raises is logged.
        """
        self._hub.listen(call, *kinds)

    def flush_announcements(self, timeout: Duration = 1.0) -> bool:
        """Wait until all committed inserts are announced; the process's exit does so by itself.

        Args:
            timeout: Seconds or a timedelta to wait at most.

        Returns:
            Whether all are.
        """
        return self._inserter.flush(check_duration("timeout", timeout, 0.0))

    def request_resign(self, tx: Tx) -> None:
        """Ask whoever leads to resign; see `riverrun.verbs.request_resign`."""
        request_resign(tx, schema=self.schema)

    @property
    def leads(self) -> bool:
        """Whether the client leads now: of all, River's included, it does the maintenance."""
        crew = self._crew
        return crew is not None and crew.leads

    @property
    def running(self) -> bool:
        """Whether the client works jobs now."""
        return self._crew is not None

    @property
    def healthy(self) -> bool:
        """Whether the client works jobs, and nothing is among its `problems`."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps the client from being healthy, a sentence each.

        That it does not work; that the database does not take its heartbeats, each 5 s; that a
        thread of its own has died within the last 10 s; that outcomes are held for more than 15 s,
        refused for good, or too many for more to be claimed; that a queue, also another's, has due
        jobs and is not paused, and no living client works it.
        """
        crew = self._crew
        return ("the client does not work",) if crew is None else tuple(crew.problems())

    @property
    def held(self) -> int:
        """How many outcomes of attempts wait to be written."""
        crew = self._crew
        return 0 if crew is None else crew.held

    @property
    def refused(self) -> int:
        """Of how many jobs the database refuses the outcome for good; their rows say running."""
        crew = self._crew
        return 0 if crew is None else crew.refused

    @property
    def beyond_repair(self) -> bool:
        """Whether a thread of the client's could not be kept alive for 60 s.

        Then the process should end, so that its supervisor starts another; `riverrun work` does.
        """
        crew = self._crew
        return crew is not None and crew.beyond_repair

    def start(self) -> None:
        """Start working the client's queues; nothing if it does already.

        Raises:
            ClientNotReady: If the client has no workers or no queues, or a plugin, such as a
                framework's, cannot be had in a process that a worker asks for.
            InvalidOption: If `listen_engine` leads to another database.
            SchemaMissing: If the tables are not there.
            sqlalchemy.exc.OperationalError: If the database cannot be reached.
        """
        if self.running:
            return
        if not self.workers or not self.workers.kinds:
            raise ClientNotReady("no worker is registered; pass workers= to the Client")
        if any(each.executor is Executor.process for each in self.workers):
            in_processes(self._plugins)
        if self._launcher.start(self._settings()):
            logger.info(
                "started client %s, connected to %s, working %s; workers for %s",
                self.id,
                address(self.engine),
                ", ".join(
                    f"{name} ({_count(config.max_workers, 'slot')})"
                    for name, config in sorted(self.queues.configs.items())
                ),
                _count(len(self.workers.kinds), "kind"),
                extra={"client_id": self.id},
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the client was stopped; return whether it was.

        Args:
            timeout: Seconds to wait; for ever if None.
        """
        return self._launcher.stopped.wait(timeout)

    def hurry(self) -> None:
        """Let a stop under way wait no longer: running jobs are cancelled now."""
        crew = self._crew
        if crew is not None:
            crew.hurry()

    def stop(self, *, timeout: Duration | None = None, cancel: bool = False) -> None:
        """Finish what runs, then stop; a client that only inserts announces what it has inserted.

        No more is claimed; what was claimed and has not begun is given back; running jobs may end,
        for `soft_stop_timeout`; then they are cancelled, and those that end by it go back
        `available`, their attempt not counted. What ended is written before this returns.

        Args:
            timeout: Seconds or a timedelta in place of `soft_stop_timeout`.
            cancel: Whether to cancel running jobs at once.

        Raises:
            ClientNotReady: If one of the client's own workers calls it.
            StopTimeout: If jobs run on in spite of that; it names them.
        """
        soft_s = self._soft_stop_timeout_s
        if timeout is not None:
            soft_s = check_duration("timeout", timeout, 0.0)
        left = self._launcher.stop(0.0 if cancel else soft_s)
        self._inserter.stop(1.0)
        if left is None:
            return
        logger.info("stopped client %s", self.id, extra={"client_id": self.id})
        if left:
            raise StopTimeout([(job.id, job.kind) for job in left])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _settings(self) -> Settings:
        assert self.workers is not None  # noqa: S101  start() has checked it
        return Settings(
            client=self,
            client_id=self.id,
            engine=self.engine,
            schema=self.schema,
            workers=self.workers,
            poll_only=self._poll_only,
            listen_engine=self._listen_engine,
            poll_interval_s=self._poll_interval_s,
            job_timeout_s=self._job_timeout_s,
            hard_stop_timeout_s=self._hard_stop_timeout_s,
            processes=self._processes,
            job_stuck_threshold_s=self._job_stuck_threshold_s,
            job_stuck_handler=self._job_stuck_handler,
            backoff=self._backoff,
            rescue_after_s=self._rescue_after_s,
            plugins=self._plugins,
            error_handler=self._error_handler,
            retention_s=self._retention_s,
            leader_election_disabled=self._leader_election_disabled,
            periodic_jobs=self.periodic_jobs,
            max_attempts=self._max_attempts,
            reindexer_index_names=self._reindexer_index_names,
            reindexer_schedule=self._reindexer_schedule,
            reindexer_timeout_s=self._reindexer_timeout_s,
            sessionmaker=self._sessionmaker,
            async_sessionmaker=self._async_sessionmaker,
            hub=self._hub,
            clock=self._clock,
            rng=self._rng,
        )

    def _wake(self, name: str) -> bool:
        crew = self._crew
        return crew is not None and crew.wake(name)

    def _wake_periodic(self) -> None:
        crew = self._crew
        if crew is not None:
            crew.wake_periodic()

    @property
    def _crew(self) -> Crew | None:
        return self._launcher.crew

    def _forked(self) -> None:
        """Be a client of the forked child's own: the parent's threads and name stay its."""
        self._launcher.forked()
        self.periodic_jobs.forked()
        self._hub.forked()
        if self._own_id:
            self.id = _default_id()


_clients: WeakSet[Client] = WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    """Stop what still works: the interpreter would wait for its threads for ever."""
    for client in list(_clients):
        if client.running:
            try:
                soft_s = client._soft_stop_timeout_s
                client.stop(timeout=EXIT_S if soft_s is None else soft_s)
            except Exception as error:
                log_error(logger, error, "client %s did not stop as the process ended", client.id)


# atexit.register() would come too late: after the wait for threads. concurrent.futures has the same
# need, and this way.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


def _check_notify(notify: Notify | str) -> Notify:
    try:
        return Notify(notify)
    except ValueError:
        raise InvalidOption("notify", notify, f"one of {', '.join(Notify)}") from None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _check_engine(engine: object) -> None:
    if not isinstance(engine, Engine):
        advice = "The client takes create_engine(...)'s Engine"
        if hasattr(engine, "sync_engine"):
            advice = (
                "Beside an AsyncEngine, give the client an engine of its own: Client.from_url(url)"
            )
        raise NotATransaction(type(engine).__name__, advice)
    if engine.dialect.is_async:
        advice = "Beside an AsyncEngine, give the client an engine of its own: Client.from_url(url)"
        raise NotATransaction("sync_engine of an AsyncEngine", advice)
    if engine.dialect.name != "postgresql" or engine.driver != "psycopg":
        given = f"{engine.dialect.name}+{engine.driver}"
        expected = "postgresql+psycopg, such as postgresql+psycopg://host/db"
        if engine.dialect.name == "postgresql":
            advice = "Client.from_url(url) makes an engine of its own"
            expected += f". {advice}; your sessions may stay on {engine.driver}, and insert jobs"
        raise UnsupportedDatabase(given, expected)
    check_pool(engine)


def _check_listen_engine(engine: Engine | None, *, poll_only: bool) -> Engine | None:
    if engine is not None:
        if poll_only:
            raise InvalidOption("listen_engine", engine, "none with poll_only=True")
        _check_engine(engine)
        renew_after_fork(engine)
        notice_dead_peers(engine)
    return engine


def _check_workers(workers: object) -> Workers | None:
    if workers is None or isinstance(workers, Workers):
        return workers
    expected = "a Workers, with whose @workers.register each function is registered"
    raise InvalidOption("workers", workers, expected)


def _check_sessionmaker(maker: Any) -> "sessionmaker[Any] | None":
    if maker is None or isinstance(maker, sessionmaker):
        return maker
    expected = "a sessionmaker, such as sessionmaker(engine); of a scoped_session, its own"
    raise InvalidOption("sessionmaker", maker, expected)


def _check_async_sessionmaker(maker: Any) -> "async_sessionmaker[Any] | None":
    # Not by its class, for which SQLAlchemy would need greenlet.
    if maker is None or type(maker).__name__ == "async_sessionmaker":
        return maker  # type: ignore[no-any-return]
    expected = "an async_sessionmaker, such as async_sessionmaker(async_engine)"
    raise InvalidOption("async_sessionmaker", maker, expected)


def _check_function(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise InvalidOption(name, value, "a function or another callable")


def _check_names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(n, str) and "\x00" not in n for n in names):
        raise InvalidOption("reindexer_index_names", names, "a sequence of names of indexes")
    return tuple(names)


def _check_id(client_id: str) -> str:
    if not isinstance(client_id, str) or not 1 <= len(client_id) <= 100:
        raise InvalidOption("id", client_id, "1 to 100 characters")
    return client_id


def _default_id() -> str:
    # Source of the form: River 0.51, client.go; ours adds what tells two of one instant apart.
    host = socket.gethostname().replace(".", "_")[:60]
    start = datetime.now(UTC).strftime("%Y_%m_%dT%H_%M_%S_%f")
    return f"{host}_{start}_{random.getrandbits(24):06x}"

"""Step 1 of 5, insert: the Client, with which an application inserts jobs and works them.

One module, although long: most of it documents the options and the methods that users call. What
the methods do is in the parts that they call, and larger groups of methods are in base classes.
"""

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack
from weakref import WeakSet

import attrs
from sqlalchemy import URL, Engine
from sqlalchemy.orm import sessionmaker

from riverrun.client.acting import Acting
from riverrun.client.inserter import Inserter
from riverrun.client.launcher import Launcher, default_id
from riverrun.client.queues import Queues
from riverrun.client.services import Services
from riverrun.client.set_based import SetBased
from riverrun.client.unit_of_work import UnitOfWork
from riverrun.clock import Clock, Duration
from riverrun.config import ClientConfig, Notify, QueueConfig
from riverrun.db.async_sessions import AsyncTx, run_in
from riverrun.db.engines import address, engine_at, notice_dead_peers, renew_after_fork
from riverrun.db.greenlets import patched_by
from riverrun.db.transactions import Tx
from riverrun.errors import (
    ClientNotReady,
    StopTimeout,
)
from riverrun.events import Event, Hub, Subscription
from riverrun.execution.handlers import ErrorHandler, JobStuckHandler
from riverrun.execution.plugins import Plugin, in_processes
from riverrun.execution.workers import Executor, Workers
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.checks import check_duration
from riverrun.jobs.listing import JobList, JobListParams
from riverrun.jobs.options import InsertOptions, InsertOpts, with_options
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.orm.rules import Rules
from riverrun.periodic_jobs import PeriodicJob, PeriodicJobs
from riverrun.policies.backoff import Backoff
from riverrun.policies.schedule import Cron, Schedule
from riverrun.verbs import cancel, delete, delete_many, get, list_jobs, retry, update
from riverrun.verbs.elect import request_resign
from riverrun.verbs.insert import InsertResult
from riverrun.verbs.reindex import INDEXES

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import async_sessionmaker

logger = logger_of("riverrun.client")  # as operators name it, in filters and levels


DEFAULT_JOB_TIMEOUT_S = 60.0


_MIDNIGHT = Cron("@midnight")


EXIT_S = 30.0
"""Seconds that running jobs have when the process exits without a stop.

A client's `soft_stop_timeout` takes precedence.
"""


class Client(Acting, SetBased, UnitOfWork):
    """Inserts jobs in the caller's transactions and, if it has workers, works them.

    Args:
        engine: A SQLAlchemy Engine on PostgreSQL with psycopg 3.
        workers: The functions that work jobs, by kind. Default: None, for a client that only
            inserts.
        queues: The queues to work. Give a mapping from each name to its QueueConfig or its number
            of slots, or the names alone. Default: None, for a client that only inserts.
        schema: The schema of River's tables. Default: None, which takes the search path's.
        id: Names this client in `attempted_by`, in at most 100 characters. If another client of
            that name lives, or was killed just now and its jobs are not rescued yet, this client
            gets a suffix when it starts. If another one takes the name while this client has no
            heartbeat for 20 s, this one cancels its jobs and is `beyond_repair`. Default: a name
            made of the host and the time.
        notify: When workers are notified of inserted jobs. Default: by the INSERT if that is rare,
            else after the commit; see `Notify`.
        poll_only: Whether to find jobs by polling alone, without LISTEN, as is necessary behind
            PgBouncer. Default: False.
        listen_engine: An engine that connects to the same database without PgBouncer, if `engine`
            connects through it. It serves the one connection that listens, and the rebuilding of
            indexes. Default: `engine`.
        poll_interval: Seconds or a timedelta between polls when no notification comes. Default: 1
            s.
        job_timeout: Seconds or a timedelta that an attempt may take, if its worker has no timeout
            of its own. 0 means no limit. Default: 60 s.
        soft_stop_timeout: Seconds or a timedelta that a stop waits for running jobs before it
            cancels them. Default: None, which waits for as long as they take.
        hard_stop_timeout: Seconds or a timedelta that a stop then waits for the cancelled jobs.
            Default: 10 s.
        processes: How many processes work the jobs of workers registered for a process. Default:
            one for each processor.
        job_stuck_threshold: Seconds or a timedelta that an attempt may go on after it was timed
            out or cancelled, before it counts as stuck. Default: 10 s.
        job_stuck_handler: Called with a job that is stuck. It may return
            `JobStuckHandlerResult(add_worker_slot=True)`. Default: None; stuck jobs are logged.
        backoff: When a failed job may be claimed again, if its worker has no backoff of its own.
            Default: River's, which is the fourth power of the number of failures, in seconds,
            give or take 10 %.
        leader_election_disabled: Whether the client never leads. It then works jobs, and leaves
            maintenance and periodic jobs to other clients. Default: False.
        periodic_jobs: The jobs to insert on a schedule. The client that leads inserts its own, so
            give all clients the same. Default: none.
        plugins: The plugins that take part in every insert and attempt, the outermost first.
            Default: none.
        error_handler: Called with the job and the error when an attempt has failed. It may return
            `ErrorHandlerResult(set_cancelled=True)`. Default: None.
        max_attempts: How many attempts a job has, if neither its options nor its args' class set a
            number. Default: 25.
        rescue_after: Seconds or a timedelta after which a running job counts as lost if its client
            writes no heartbeats, as River's clients do not. Jobs of riverrun's clients are rescued
            within 30 s of their client's death, and never while it lives. So that a River leader
            does not rescue them either, their client renews their attempt time six times in this
            period. If the Go clients set RescueStuckJobsAfter, set the same here. Default: 1 h.
        cancelled_retention: Seconds or a timedelta to keep cancelled jobs; None keeps them for
            ever. Default: 24 h.
        completed_retention: Seconds or a timedelta to keep completed jobs; 0 deletes them as they
            are completed, which costs the database much less than an update; None keeps them for
            ever. Default: 24 h.
        discarded_retention: Seconds or a timedelta to keep discarded jobs; None keeps them for
            ever. Default: 7 days.
        reindexer_index_names: The indexes to rebuild. Default: all that are known to bloat.
        reindexer_schedule: When the leader rebuilds the job table's indexes; None for never.
            Default: daily at midnight, UTC.
        reindexer_timeout: Seconds or a timedelta that rebuilding one index may take. 0 means no
            limit. Default: 60 s.
        sessionmaker: Makes the sessions that workers take as a parameter, with its class, options
            and binds, on the client's database. Default: SQLAlchemy's Session.
        async_sessionmaker: Makes the AsyncSessions that workers take. Its `bind`, an AsyncEngine,
            is used only by the client's event loop. Default: AsyncSession, on an AsyncEngine of
            the client's own that connects as `engine` does.
        skip_unknown_job_check: Whether a client with workers may insert kinds it has none for.
            Default: False.
        clock: The process's clock. Tests pass another. Default: the system's.
        rng: The source of jitter. Tests pass a seeded one. Default: `random.Random()`.

    Raises:
        InvalidOption: If an option is out of range.
        UnsupportedDatabase: If riverrun cannot work with the engine's database or driver.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        workers: Workers | None = None,
        queues: Mapping[str, QueueConfig | int] | Sequence[str] | AbstractSet[str] | None = None,
        schema: str | None = None,
        id: str | None = None,  # noqa: A002  River's name for it
        notify: Notify | str = Notify.adaptive,
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
        self.config = config = ClientConfig(
            engine=engine,
            workers=workers,
            queues=queues,
            schema=schema,
            id=id,
            notify=notify,
            poll_only=poll_only,
            listen_engine=listen_engine,
            poll_interval=poll_interval,
            job_timeout=job_timeout,
            soft_stop_timeout=soft_stop_timeout,
            hard_stop_timeout=hard_stop_timeout,
            processes=processes,
            job_stuck_threshold=job_stuck_threshold,
            job_stuck_handler=job_stuck_handler,
            backoff=backoff,
            leader_election_disabled=leader_election_disabled,
            periodic_jobs=periodic_jobs,
            plugins=plugins,
            error_handler=error_handler,
            max_attempts=max_attempts,
            rescue_after=rescue_after,
            cancelled_retention=cancelled_retention,
            completed_retention=completed_retention,
            discarded_retention=discarded_retention,
            reindexer_index_names=reindexer_index_names,
            reindexer_schedule=reindexer_schedule,
            reindexer_timeout=reindexer_timeout,
            skip_unknown_job_check=skip_unknown_job_check,
            sessionmaker=sessionmaker,
            async_sessionmaker=async_sessionmaker,
            clock=clock,
            rng=rng,
        )
        for bind in filter(None, (engine, listen_engine)):
            renew_after_fork(bind)
            notice_dead_peers(bind)
        self.engine = engine
        self.schema = config.schema
        self.workers = config.workers
        self.id = config.id or default_id()
        self.hub = Hub()
        self._launcher = Launcher(config.queues)
        self.queues = Queues(
            self._launcher, soft_stop_timeout_s=config.soft_stop_timeout_s, schema=config.schema
        )
        self.periodic_jobs = PeriodicJobs(
            periodic_jobs, leader_election_disabled=leader_election_disabled
        )
        self._inserter = Inserter(config, launcher=self._launcher, own_queues=self.queues)
        self.rules = Rules(self._inserter)
        _clients.add(self)

    @classmethod
    def from_url(cls, url: str | URL, **options: Any) -> Self:
        """Return a client with an engine of its own, on psycopg 3, at `url`.

        It is for applications whose own engine has another driver. Their sessions can insert jobs
        all the same.

        Args:
            url: The address of a PostgreSQL database. It may begin with `postgresql://` or
                `postgres://`, name any driver, list several hosts as libpq allows, or have the form
                `host=... dbname=...`.
            **options: The options of `Client`.

        Raises:
            UnsupportedDatabase: If `url` is not such an address. The error does not repeat it.
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
        """Insert one job in the caller's transaction: the job exists only if that commits.

        Args:
            tx: The transaction: that of a Session, scoped_session or Connection is joined; an
                Engine begins and commits one of its own.
            args: An object of a class with a kind.
            opts: How the job is inserted. What they leave open is decided by the options of the
                args' class, and then by the client.
            **options: The same as keywords, such as `queue="mail", delay=60`. They take precedence
                over `opts`.

        Raises:
            InvalidArgs: If the worker would not get equal args back from JSON, or they are too
                large.
            InvalidOption: If an option is out of range.
            NotATransaction, TransactionClosed: If `tx` has no open transaction.
            SchemaMissing: If River's tables are missing.
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
            tx: The transaction: that of an AsyncSession, async_scoped_session or AsyncConnection is
                joined; an AsyncEngine begins and commits one of its own. Any driver will do.
            args: An object of a class with a kind.
            opts: How the job is inserted, as for `insert`.
            **options: The same as keywords, as for `insert`.

        Raises:
            RiverrunError: As for `insert`.
        """
        return await run_in(tx, self.insert, args, with_options(opts, options))

    async def insert_many_async(self, tx: AsyncTx, jobs: Iterable[object]) -> list[InsertResult]:
        """Insert jobs from async code, all or none, as `insert_many`.

        Args:
            tx: The transaction, as for `insert_async`.
            jobs: Args, or pairs of args and InsertOpts.

        Raises:
            RiverrunError: As for `insert_many`.
        """
        return await run_in(tx, self.insert_many, jobs)

    def insert_many(self, tx: Tx, jobs: Iterable[object]) -> list[InsertResult]:
        """Insert jobs in the caller's transaction: all of them, or none if one is refused.

        Args:
            tx: The transaction, as for `insert`.
            jobs: Args, or pairs of args and InsertOpts.

        Returns:
            A result for each job, in their order.

        Raises:
            InvalidOption: If there is no job, or an option is out of range.
            RiverrunError: As for `insert`.
        """
        return self._inserter.insert_many(tx, jobs)

    def insert_many_fast(self, tx: Tx, jobs: Iterable[object]) -> int:
        """Insert jobs as `insert_many` does, but by COPY, and return only their number.

        Args:
            tx: The transaction, as for `insert`.
            jobs: Args, or pairs of args and InsertOpts.

        Raises:
            RiverrunError: As for `insert_many`.
        """
        return self._inserter.insert_many_fast(tx, jobs)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins of every insert and attempt.

        Inserts follow a change at once, attempts when the client is next started.
        """
        return self.config.plugins

    @plugins.setter
    def plugins(self, plugins: Sequence[Plugin]) -> None:
        self.config = attrs.evolve(self.config, plugins=plugins)
        self._inserter.plugins = self.config.plugins

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
        """Delete a job that is not running; see `riverrun.verbs.delete`."""
        return delete(tx, job_id, schema=self.schema)

    def delete_many(
        self, tx: Tx, params: JobListParams, *, unsafe_all: bool = False
    ) -> list[JobRow]:
        """Delete jobs by filters, except running ones; see `riverrun.verbs.delete_many`."""
        return delete_many(tx, params, unsafe_all=unsafe_all, schema=self.schema)

    def cancel(self, tx: Tx, job_id: int) -> JobRow:
        """Cancel a job, interrupting it if it runs; see `riverrun.verbs.cancel`."""
        job = cancel(tx, job_id, schema=self.schema, now=self.config.clock.database_now())
        services = self._services
        if services is not None and job.state is JobState.running and isinstance(tx, Engine):
            services.producers.cancel(job.id)
        return job

    def retry(self, tx: Tx, job_id: int) -> JobRow:
        """Make a job available now; see `riverrun.verbs.retry`."""
        job = retry(tx, job_id, schema=self.schema, now=self.config.clock.database_now())
        if job.state is JobState.available:
            self._inserter.announce(tx, {job.queue})
        return job

    def subscribe(self, *kinds: type[Event]) -> Subscription:
        """Return a subscription to events of `kinds`, such as JobCompleted; without kinds, to all.

        It receives the events of attempts that finish from now on.
        """
        return self.hub.subscribe(*kinds)

    def listen(self, call: Callable[[Event], object], *kinds: type[Event]) -> None:
        """Call `call` with each event of `kinds`, or with all, in the thread of the event.

        Unlike a subscription it misses no event. But the client waits for `call`, so it must be
        quick. What it raises is logged.
        """
        self.hub.listen(call, *kinds)

    def flush_announcements(self, timeout: Duration = 1.0) -> bool:
        """Wait until all committed inserts are announced. The process does so when it exits.

        Args:
            timeout: Seconds or a timedelta to wait at most. Default: 1 s.

        Returns:
            Whether all are announced.
        """
        return self._inserter.flush(check_duration("timeout", timeout, 0.0))

    def request_resign(self, tx: Tx) -> None:
        """Ask the leader to resign; see `riverrun.verbs.request_resign`."""
        request_resign(tx, schema=self.schema)

    @property
    def leads(self) -> bool:
        """Whether the client leads now: one client, River's included, does the maintenance."""
        services = self._services
        return services is not None and services.elector.leads

    @property
    def running(self) -> bool:
        """Whether the client works jobs now."""
        return self._services is not None

    @property
    def healthy(self) -> bool:
        """Whether the client works jobs, and nothing is among its `problems`."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps the client from being healthy, a sentence each.

        Problems are: the client is not started; the database does not take its heartbeats, one
        each 5 s; a thread of its own has died within the last 10 s; outcomes have been held for
        more than 15 s, were refused for good, or are so many that no more jobs are claimed; the
        claims of a queue have failed for more than 15 s; all slots of a queue have jobs that are
        stuck (`job_stuck_threshold`); a queue, even one of other clients, has due jobs and is not
        paused, but no living client works it.
        """
        services = self._services
        return ("the client does not work",) if services is None else tuple(services.problems())

    @property
    def held(self) -> int:
        """How many outcomes of attempts wait to be written."""
        services = self._services
        return 0 if services is None else services.completer.held

    @property
    def refused(self) -> int:
        """How many jobs stay `running`, because the database refuses their outcome for good."""
        services = self._services
        return 0 if services is None else len(services.completer.refused)

    @property
    def beyond_repair(self) -> bool:
        """Whether the client cannot work any more.

        One of its threads could not be kept alive for 60 s, or another client has taken its name.
        Then the process should exit, so that its supervisor starts another. `riverrun work` does.
        """
        services = self._services
        return services is not None and services.beyond_repair

    def start(self) -> None:
        """Start working the client's queues. Do nothing if it works them already.

        Raises:
            ClientNotReady: If the client has no workers or no queues, or if a worker is registered
                for a process in which one of the plugins, such as a framework's, cannot work, or
                which gevent's patches do not allow.
            InvalidOption: If `listen_engine` leads to another database.
            SchemaMissing: If River's tables are missing.
            sqlalchemy.exc.OperationalError: If the database cannot be reached.
        """
        if self.running:
            return
        if not self.workers or not self.workers.kinds:
            raise ClientNotReady("no worker is registered; pass workers= to the Client")
        patched = patched_by()
        if any(worker.executor is Executor.process for worker in self.workers):
            if patched is not None:
                problem = f"a worker has executor='process', which {patched}'s patches do not allow"
                raise ClientNotReady(f"{problem}; start the client without them: riverrun work")
            in_processes(self.plugins)
        if patched is not None:
            message = (
                "%s has patched this process, so its workers and the client's heartbeat share one "
                "thread: a worker that computes for long loses jobs to other clients; `riverrun "
                "work` in a process of its own does not"
            )
            logger.warning(message, patched)
        if self._launcher.start(self.config, client=self, hub=self.hub, jobs=self.periodic_jobs):
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
        """Wait until the client is stopped; return whether it is.

        Args:
            timeout: Seconds to wait at most. Default: None, which waits for ever.
        """
        return self._launcher.stopped.wait(timeout)

    def hurry(self) -> None:
        """Cancel running jobs now, without waiting any longer, during a stop under way."""
        services = self._services
        if services is not None:
            services.hurry()

    def stop(self, *, timeout: Duration | None = None, cancel: bool = False) -> None:
        """Let running jobs finish, then stop. A client that only inserts announces its inserts.

        The client claims nothing more, and gives back jobs that were claimed and have not begun.
        Running jobs have `soft_stop_timeout` to finish. Then they are cancelled, and those that the
        cancellation interrupts become `available` again, without counting the attempt. The outcomes
        of finished attempts are written before this returns.

        A signal handler that interrupts a `start` or `stop` of the same client may call it. It then
        returns at once: the start stops once it has started, and the stop goes on.

        Args:
            timeout: Seconds or a timedelta in place of `soft_stop_timeout`. Default: None, which
                keeps that.
            cancel: Whether to cancel running jobs at once. Default: False.

        Raises:
            ClientNotReady: If one of the client's own workers calls it.
            StopTimeout: If jobs run on although cancelled; the error names them.
        """
        soft_s = self.config.soft_stop_timeout_s
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

    @property
    def _services(self) -> Services | None:
        return self._launcher.services

    def _forked(self) -> None:
        """Start afresh in a forked child: the parent's threads and name stay the parent's."""
        self._launcher.forked()
        self.periodic_jobs.forked()
        self.hub.forked()
        if self.config.id is None:
            self.id = default_id()


_clients: WeakSet[Client] = WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    """Stop the clients that still run: the interpreter would wait for their threads for ever."""
    for client in list(_clients):
        if client.running:
            try:
                soft_s = client.config.soft_stop_timeout_s
                client.stop(timeout=EXIT_S if soft_s is None else soft_s)
            except Exception as error:
                log_error(
                    logger, error, "client %s did not stop when the process exited", client.id
                )


# Functions of atexit.register() run too late: after the wait for threads. concurrent.futures has
# the same need and uses the same private function.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""Step 1 of 5, insert: what an application inserts jobs with, and works them with."""

import asyncio
import logging
import os
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from weakref import WeakSet

import attrs
from sqlalchemy import URL, Engine
from sqlalchemy.orm import InstrumentedAttribute, Session, scoped_session, sessionmaker

from riverrun.client.inserter import Inserter
from riverrun.client.launcher import Launcher, default_id
from riverrun.client.queues import Queues
from riverrun.client.services import Services
from riverrun.client.set_based import SetBased
from riverrun.clock import Clock, Duration
from riverrun.config import ClientConfig, Notify, QueueConfig
from riverrun.db.async_sessions import AsyncTx, run_in
from riverrun.db.engines import address, engine_at, notice_dead_peers, renew_after_fork
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
from riverrun.orm.added import AddedJob, session_of
from riverrun.orm.rules import Rule, Rules
from riverrun.periodic_jobs import PeriodicJob, PeriodicJobs
from riverrun.policies.backoff import Backoff
from riverrun.policies.schedule import Cron, Schedule
from riverrun.verbs import cancel, delete, delete_many, get, list_jobs, retry, update
from riverrun.verbs.elect import request_resign
from riverrun.verbs.insert import InsertResult
from riverrun.verbs.reindex import INDEXES

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker

logger = logging.getLogger("riverrun.client")  # as operators name it, in filters and levels

T = TypeVar("T")
V = TypeVar("V")


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
        for each in filter(None, (engine, listen_engine)):
            renew_after_fork(each)
            notice_dead_peers(each)
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

    def add(
        self,
        session: "Session | scoped_session[Any] | AsyncSession | async_scoped_session[Any]",
        args: AnyArgs,
        opts: InsertOpts | None = None,
        **options: Unpack[InsertOptions],
    ) -> AddedJob:
        """Have the session's next flush insert a job, with the objects that its args refer to.

            session.add(order)
            client.add(session, SendReceipt(order=order))
            session.commit()

        As `session.add` does for an object, it executes nothing, and begins the session's
        transaction if need be. The jobs of one flush are inserted by one statement. They are gone
        if the flush fails or their transaction, or savepoint, is rolled back.

        Args:
            session: Whose flush: a Session, scoped_session, AsyncSession or async_scoped_session;
                without await.
            args: An object of a class with a kind. A mapped object in it needs no key yet, if it is
                in the session.
            opts: How, as for `insert`. A delay counts from now, or from the flush if the args wait
                for it. With `coalesce=True` jobs of one transaction that are the same are one.
            **options: The same as keywords, as for `insert`.

        Returns:
            The added job. Its `job` is there after the flush.

        Raises:
            InvalidArgs: If the args are refused whatever the flush brings. Else the flush raises
                it, such as for an object that was expunged from the session meanwhile.
            NotATransaction: If `session` is no session.
            RiverrunError: As for `insert`, here or from the flush.
        """
        return self._inserter.add(session_of(session), args, with_options(opts, options))

    def on_insert(
        self,
        entity: type[T],
        make: Callable[[T], object],
        *,
        opts: InsertOpts | None = None,
        strict: bool = False,
    ) -> Rule[T]:
        """Make a job of each object of a class that is inserted, atomic with that.

            client.on_insert(User, lambda user: Welcome(user=user))

        The flush of any session, of any thread, counts. An object that is inserted and deleted in
        one transaction makes no job.

        Args:
            entity: The mapped class; its subclasses count, too.
            make: Called with the object as its transaction commits; returns args, or None for no
                job.
            opts: How the job is inserted.
            strict: Whether a bulk statement that the ORM sees, such as `insert(User)`, is refused
                with RuleBypassed. Default: it warns, once for the rule. What the ORM does not see
                passes: `text()`, statements on the connection, `bulk_*`, the database's cascades.

        Returns:
            The rule, which is among `client.rules` until its `remove()`.

        Raises:
            InvalidOption: If `entity` is no mapped class, or `make` no function.
        """
        return self.rules.add("insert", entity, make, opts=opts, strict=strict)

    def on_update(
        self,
        attribute: InstrumentedAttribute[V],
        make: Callable[[Any], object],
        *,
        when: Callable[[V], object] | None = None,
        opts: InsertOpts | None = None,
        strict: bool = False,
    ) -> Rule[Any]:
        """Make a job of each object of which an attribute is changed, atomic with that.

            client.on_update(Order.status, OrderChanged, when=lambda new: new == "paid")

        Many changes to one object in one transaction are one job, decided as that commits: none if
        the attribute has its old value again, as far as that was loaded.

        Args:
            attribute: Of a mapped class, such as `Order.status`; its subclasses count, too.
            make: Called with the object as its transaction commits; returns args, or None for no
                job.
            when: Called with the new value; whether it counts. Default: all do.
            opts: How the job is inserted.
            strict: Whether a bulk statement that sets the attribute is refused, as for `on_insert`.

        Returns:
            The rule.

        Raises:
            InvalidOption: If `attribute` is none of a mapped class, or `make` no function.
        """
        return self.rules.add("update", attribute, make, when=when, opts=opts, strict=strict)

    def on_delete(
        self,
        entity: type[T],
        make: Callable[[T], object],
        *,
        opts: InsertOpts | None = None,
        strict: bool = False,
    ) -> Rule[T]:
        """Make a job of each object of a class that is deleted, atomic with that.

            client.on_delete(Upload, lambda upload: DeleteFile(path=upload.path))

        Orphans count. An object that takes over a deleted one's row in the same flush does not:
        the row is still there. Rows that the database's own ON DELETE CASCADE deletes, and that are
        not loaded, are not seen.

        Args:
            entity: The mapped class; its subclasses count, too.
            make: Called with the object in the flush that deletes it; returns args, or None for no
                job.
            opts: How the job is inserted.
            strict: Whether a bulk statement is refused, as for `on_insert`.

        Returns:
            The rule.

        Raises:
            InvalidOption: If `entity` is no mapped class, or `make` no function.
        """
        return self.rules.add("delete", entity, make, opts=opts, strict=strict)

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

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """What takes part in every insert and attempt; attempts take a change at the next start."""
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
        """Delete a job that does not run; see `riverrun.verbs.delete`."""
        return delete(tx, job_id, schema=self.schema)

    def delete_many(
        self, tx: Tx, params: JobListParams, *, unsafe_all: bool = False
    ) -> list[JobRow]:
        """Delete jobs by filters, none that runs; see `riverrun.verbs.delete_many`."""
        return delete_many(tx, params, unsafe_all=unsafe_all, schema=self.schema)

    def cancel(self, tx: Tx, job_id: int) -> JobRow:
        """Cancel a job; one that runs is told to end. See `riverrun.verbs.cancel`."""
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
        """Return a subscription to events of `kinds`, such as JobCompleted; to all if none.

        Of attempts, those that end from now on.
        """
        return self.hub.subscribe(*kinds)

    def listen(self, call: Callable[[Event], object], *kinds: type[Event]) -> None:
        """Have `call` called with each event of `kinds`, or with all, where it happens.

        Unlike a subscription it misses none; but the client waits for it, so it must be quick. What
        it raises is logged.
        """
        self.hub.listen(call, *kinds)

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

        That it does not work; that the database does not take its heartbeats, each 5 s; that a
        thread of its own has died within the last 10 s; that outcomes are held for more than 15 s,
        refused for good, or too many for more to be claimed; that a queue, also another's, has due
        jobs and is not paused, and no living client works it.
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
        """Of how many jobs the database refuses the outcome for good; their rows say running."""
        services = self._services
        return 0 if services is None else len(services.completer.refused)

    @property
    def beyond_repair(self) -> bool:
        """Whether a thread of the client's could not be kept alive for 60 s.

        Then the process should end, so that its supervisor starts another; `riverrun work` does.
        """
        services = self._services
        return services is not None and services.health.beyond_repair

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
            in_processes(self.plugins)
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
        """Wait until the client was stopped; return whether it was.

        Args:
            timeout: Seconds to wait; for ever if None.
        """
        return self._launcher.stopped.wait(timeout)

    def hurry(self) -> None:
        """Let a stop under way wait no longer: running jobs are cancelled now."""
        services = self._services
        if services is not None:
            services.hurry()

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
        """Be a client of the forked child's own: the parent's threads and name stay its."""
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
    """Stop what still works: the interpreter would wait for its threads for ever."""
    for client in list(_clients):
        if client.running:
            try:
                soft_s = client.config.soft_stop_timeout_s
                client.stop(timeout=EXIT_S if soft_s is None else soft_s)
            except Exception as error:
                log_error(logger, error, "client %s did not stop as the process ended", client.id)


# atexit.register() would come too late: after the wait for threads. concurrent.futures has the same
# need, and this way.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

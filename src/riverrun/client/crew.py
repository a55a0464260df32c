"""Crew: every thread of a working client, built, started and stopped together."""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import sessionmaker

from riverrun.clock import Clock
from riverrun.config import QueueConfig
from riverrun.db.async_engine import AsyncEngineBeside
from riverrun.db.statement_timeout import SINGLE, with_timeout
from riverrun.db.worker_engine import WorkerEngine, capacity, too_few
from riverrun.errors import (
    AttemptInterrupted,
    ClientGivenUp,
    ClientNotReady,
    ClientStopping,
    JobCancelledRemotely,
)
from riverrun.events import Hub, QueuePaused, QueueResumed
from riverrun.execution.attempt import Attempt, InProcess, Terms, executed_here
from riverrun.execution.context import JobContext
from riverrun.execution.handlers import ErrorHandler, JobStuckHandler
from riverrun.execution.plugins import Plugin
from riverrun.execution.processes import ProcessPool
from riverrun.execution.worker_session import SessionMakers
from riverrun.execution.workers import Executor, Workers
from riverrun.jobs.checks import check_duration
from riverrun.jobs.row import JobRow
from riverrun.logs.text import reason
from riverrun.maintenance.elector import Elector
from riverrun.maintenance.job_cleaner import JobCleaner
from riverrun.maintenance.job_rescuer import JobRescuer, StandIn
from riverrun.maintenance.job_scheduler import JobScheduler
from riverrun.maintenance.maintainer import Maintainer
from riverrun.maintenance.periodic_job_inserter import PeriodicJobInserter
from riverrun.maintenance.queue_cleaner import QueueCleaner
from riverrun.maintenance.reindexer import Reindexer
from riverrun.periodic_jobs import PeriodicJobs
from riverrun.policies.backoff import Backoff
from riverrun.policies.schedule import Schedule
from riverrun.runtime.completer import Completer
from riverrun.runtime.connections import Connections
from riverrun.runtime.event_loop import LoopThread
from riverrun.runtime.heartbeat import Heartbeat
from riverrun.runtime.notifier import Notifier
from riverrun.runtime.poller import Poller
from riverrun.runtime.producer import Producer
from riverrun.runtime.queue_reporter import QueueKeeper
from riverrun.runtime.service import Service
from riverrun.runtime.statement_canceller import Deadline
from riverrun.runtime.stocktaker import Stocktaker
from riverrun.runtime.stuck_jobs import Watchdog
from riverrun.verbs.claim import ClaimedJob
from riverrun.verbs.give_back import Claim
from riverrun.verbs.queues import ALL, QueueRow
from riverrun.wire.topics import Topic

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import async_sessionmaker

logger = logging.getLogger(__name__)


_FLUSH_S = 10.0


ANSWER_S = 30.0
"""Seconds after which a statement of the walk, which takes milliseconds, is given up."""


DISPOSE_S = 5.0
"""Seconds that closing the connections of workers' AsyncSessions may take at a stop."""

SIGN_S = 4.0
"""The same for a heartbeat and a turn of the election: the next is in time, before 15 and 14 s."""


HELD_S = 15.0
"""Seconds for which an outcome may be held before the client counts as unhealthy."""


BEYOND_REPAIR_S = 60.0
"""Seconds for which a service may fail before the client counts as beyond repair."""


UPKEEP_S = 60.0
"""The same for a batch of maintenance. Twice what River 0.51 allows it."""


def unworked(name: str) -> str:
    """Return what to say of a queue with due jobs that nobody works."""
    return f"jobs of queue {name!r} are due, it is not paused, and no living client works it"


@attrs.frozen(kw_only=True)
class Settings:
    """What a client was told, checked; durations in seconds.

    Attributes:
        client: The client, for what its workers insert.
        listen_engine: For what needs a session to itself: listening, and rebuilding indexes.
        retention_s: By final state, how long to keep jobs; None for ever.
    """

    client: Any
    client_id: str
    engine: Engine
    schema: str | None
    workers: Workers
    poll_only: bool
    listen_engine: Engine
    poll_interval_s: float
    job_timeout_s: float
    hard_stop_timeout_s: float
    processes: int
    job_stuck_threshold_s: float
    job_stuck_handler: JobStuckHandler | None
    backoff: Backoff
    rescue_after_s: float
    plugins: Sequence[Plugin]
    error_handler: ErrorHandler | None
    retention_s: Mapping[str, float | None]
    leader_election_disabled: bool
    periodic_jobs: PeriodicJobs
    max_attempts: int
    reindexer_index_names: Sequence[str]
    reindexer_schedule: Schedule | None
    reindexer_timeout_s: float
    sessionmaker: sessionmaker[Any] | None
    async_sessionmaker: "async_sessionmaker[Any] | None"
    hub: Hub
    clock: Clock
    rng: random.Random

    def terms(
        self,
        context: Callable[[JobRow | ClaimedJob, float], JobContext],
        in_process: InProcess | None = None,
    ) -> Terms:
        """Return what attempts have in common.

        Args:
            context: Makes their contexts.
            in_process: Calls workers that ask for a process of their own; else they are called
                where they are.
        """
        return Terms(
            workers=self.workers,
            backoff=self.backoff,
            plugins=self.plugins,
            error_handler=self.error_handler,
            in_process=in_process,
            heard=lambda: self.hub.has_subscribers,
            context=context,
            clock=self.clock,
        )

    def makers(self, async_engine: AsyncEngineBeside) -> SessionMakers:
        """Return what makes the sessions that workers take.

        Args:
            async_engine: Of AsyncSessions, where the application's async_sessionmaker has none.
        """
        return SessionMakers(
            sync=self.sessionmaker, awaited=self.async_sessionmaker, async_engine=async_engine
        )

    def timeout_s(self, kind: str) -> float | None:
        """Return the seconds an attempt at `kind` may take; None for no limit."""
        own_s = self.workers.timeout_s(kind)
        return (self.job_timeout_s if own_s is None else own_s) or None


class Crew:
    """Works queues: producers claim, slots execute, the completer writes, one elector stands."""

    def __init__(
        self, settings: Settings, queues: Mapping[str, QueueConfig], own: Connections
    ) -> None:
        self._settings = settings
        self._hurried = threading.Event()
        self._pausing = threading.Lock()  # held to pause or resume, and guards the next
        self._told: dict[str, float] = {}  # when a queue was last paused or resumed by word
        self._lock = threading.Lock()  # guards _producers, which is replaced, and _stopping
        self._stopping = False
        self._producers: dict[str, Producer] = {}
        self._left: list[Producer] = []  # of removed queues, with attempts that did not end
        schema, clock, rng = settings.schema, settings.clock, settings.rng
        self._worker_engine = WorkerEngine(settings.engine, slots=0)
        self._async_engine = AsyncEngineBeside(settings.engine, pooled=True)
        self._makers = settings.makers(self._async_engine)
        self._connections = own
        # One statement a transaction needs no BEGIN and no COMMIT around it.
        signs = with_timeout(own.signs, ANSWER_S, **{SINGLE: True})
        self._claims = with_timeout(own.claims, ANSWER_S, **{SINGLE: True})
        self._upkeep = with_timeout(own.maintenance, UPKEEP_S)
        self._completer = Completer(
            signs,
            on_due=self._expect,
            schema=schema,
            hub=settings.hub,
            clock=clock,
            rng=rng,
        )
        self._heartbeat = Heartbeat(
            with_timeout(own.signs, SIGN_S, **{SINGLE: True}),
            client_id=settings.client_id,
            queues=lambda: list(self._producers),
            attempts=self._unwritten,
            state=self.state,
            on_given_up=lambda: self._cancel_all(ClientGivenUp()),
            rescue_after_s=settings.rescue_after_s,
            schema=schema,
            clock=clock,
            rng=rng,
        )
        self._stand_in = StandIn(
            self._rescuer(stuck_s=None), needed=lambda: self._heartbeat.river_leads, rng=rng
        )
        self._periodic = PeriodicJobInserter(
            self._upkeep,
            jobs=settings.periodic_jobs,
            leads=lambda: self._elector.leads,
            plugins=settings.plugins,
            max_attempts=settings.max_attempts,
            schema=schema,
            rng=rng,
        )
        self._maintenance_services = self._maintenance()
        maintainer = Maintainer(self._maintenance_services)
        self._elector = Elector(
            with_timeout(own.signs, SIGN_S),
            client_id=settings.client_id,
            schema=schema,
            on_elected=maintainer.start,
            on_lost=maintainer.stop,
            clock=clock,
            rng=rng,
        )
        self._loop = LoopThread(on_lost=self._lose_loop)
        self._processes = ProcessPool(settings.processes)
        self._terms = settings.terms(self._context, self._processes.work)
        self._watchdog = Watchdog(
            look=self._heartbeat.look,
            services=self.services,
            running=self._attempts,
            replace=self._replace,
            handler=settings.job_stuck_handler,
            threshold_s=settings.job_stuck_threshold_s,
            clock=clock,
        )
        self._heartbeat.watch_over(self._watchdog)
        self._deadline = Deadline(clock=clock)
        self._notifier = Notifier(
            with_timeout(own.sessions, ANSWER_S),
            schema=schema,
            on_notification=self._hear,
            on_listening=self._listening,
            rng=rng,
        )
        self._keeper = QueueKeeper(
            signs,
            names=lambda: list(self._producers),
            on_read=self._read,
            claimed=self._claimed,
            on_cancelled=self.cancel,
            poll_only=settings.poll_only,
            schema=schema,
            clock=clock,
            rng=rng,
        )
        self._stocktaker = Stocktaker(
            self._claims,
            client_id=settings.client_id,
            producers=lambda: [*self._producers.values(), *self._left],
            completer=self._completer,
            schema=schema,
            clock=clock,
            rng=rng,
        )
        for name, config in queues.items():
            self._producers[name] = self._producer(name, config)
        self._poller = Poller(
            self._claims,
            producers=lambda: self._producers.values(),
            schema=schema,
            clock=clock,
            rng=rng,
        )

    def start(self) -> None:
        """Start every thread; the first heartbeat is written before anything is claimed.

        Raises:
            RuntimeError: If the process may have no more threads.
            sqlalchemy.exc.OperationalError: If the database cannot be reached.
        """
        try:
            self._start()
        except BaseException:
            self.stop(0.0)
            raise

    def _start(self) -> None:
        settings = self._settings
        self._check_slots()
        # Known to live before it claims: no job is ever its client's only word.
        self._heartbeat.run_once()
        self._keeper.say(list(self._producers))
        self._deadline.start()
        if not settings.poll_only:
            self._notifier.start()
        self._keeper.start()
        self._poller.start()
        self._completer.start()
        for producer in self._producers.values():
            producer.start()
        self._watchdog.start()
        self._stocktaker.start()
        self._heartbeat.start()
        self._stand_in.start()
        if not settings.leader_election_disabled:
            self._elector.start()

    def stop(self, soft_s: float | None) -> list[JobRow]:
        """Stop along the walk: claim no more, let attempts end, write, resign, stop listening.

        Args:
            soft_s: Seconds that running jobs may take before they are cancelled; None for as long
                as they need.

        Returns:
            The jobs that run on in spite of being cancelled.
        """
        with self._lock:
            self._stopping = True
        producers = list(self._producers.values())
        for producer in producers:
            producer.stopping.set()
            producer.interrupt()
        for producer in producers:
            producer.stop()
        left = self._stop_attempts(producers, soft_s)
        self._watchdog.stop()
        self._stocktaker.stop()
        self._poller.stop()
        if self._async_engine.is_made:
            self._loop.run_soon(self._async_engine.dispose, DISPOSE_S)
        self._loop.stop(0.0 if left else None)
        self._processes.stop()
        self._keeper.stop()
        self._elector.stop()
        self._stand_in.stop()
        if not self._completer.stop(_FLUSH_S):
            self._completer.gave_up.set()
            self._completer.stop()
        self._stocktaker.finish()
        self._heartbeat.stop()
        if not left:
            self._heartbeat.leave()
        self._notifier.stop()
        self._deadline.stop()
        self._connections.close()
        return left

    def add(self, name: str, config: QueueConfig) -> None:
        """Work the queue `name` too.

        Raises:
            ClientNotReady: If the client is being stopped.
            RuntimeError: If the process may have no more threads.
            sqlalchemy.exc.DBAPIError: If the database cannot be asked how the queue stands.
        """
        producer = self._producer(name, config)
        # Before it claims: the queue may be paused.
        for row in self._keeper.say([*self._producers, name]):
            if row.name == name:
                producer.pause(row.paused_at is not None)
        with self._lock:
            if self._stopping:
                raise ClientNotReady("the client is being stopped; add queues before or after")
            producer.start()
            self._producers = {**self._producers, name: producer}
            self._check_slots()

    def remove(self, name: str, soft_s: float | None) -> list[JobRow]:
        """Work the queue `name` no more; return the jobs that run on although cancelled.

        Args:
            name: The queue.
            soft_s: Seconds that its running jobs may take before they are cancelled.
        """
        producer = self._producers.get(name)
        if producer is None:
            return []
        producer.stop()
        left = self._stop_attempts([producer], soft_s)
        # Only now: until then its jobs can be cancelled, and its heartbeat speaks for them.
        with self._lock:
            self._left.append(producer)
            self._producers = {key: each for key, each in self._producers.items() if key != name}
            self._worker_engine.slots = self._slots()
        return left

    @property
    def leads(self) -> bool:
        """Whether the client leads."""
        return self._elector.leads

    def problems(self) -> list[str]:
        """Return what keeps the client from being healthy, a sentence each."""
        found = self._own_problems()
        if not self._heartbeat.heard:
            found.append("the database does not take heartbeats")
        # As a repr: whoever may insert may give a queue any name.
        return found + [unworked(name) for name in self._keeper.unworked]

    def state(self) -> dict[str, Any]:
        """Return what a heartbeat tells others of this client."""
        producers = list(self._producers.values())
        return {
            "slots": {each.queue: each.config.max_workers for each in producers},
            "running": len(self.running_jobs()),
            "problems": self._own_problems(),
        }

    def _own_problems(self) -> list[str]:
        found = [
            f"{service.name} has been failing for {failing_s:.0f} s"
            for service in self.services()
            if (failing_s := service.failing_s)
        ]
        completer = self._completer
        if (held_s := completer.held_s) > HELD_S:
            found.append(f"outcomes are held, the oldest for {held_s:.0f} s")
        if self.refused:
            found.append(f"{self.refused} jobs say running, as the database refuses their outcome")
        if not completer.wait_for_room(timeout=0):
            found.append("claiming is stopped: too many outcomes wait to be written")
        return found

    @property
    def held(self) -> int:
        """How many outcomes wait to be written."""
        return self._completer.held

    @property
    def refused(self) -> int:
        """Of how many jobs the database refuses the outcome for good."""
        return len(self._completer.refused)

    @property
    def beyond_repair(self) -> bool:
        """Whether a service could not be brought to run for so long that a new process is due."""
        return any(service.failing_s > BEYOND_REPAIR_S for service in self.services())

    @property
    def queues(self) -> frozenset[str]:
        """The queues that are worked."""
        return frozenset(self._producers)

    def works_here(self, queue: str | None = None) -> bool:
        """Return whether the caller is one of those who would be waited for.

        Args:
            queue: If `queue` alone were to be worked no more; None for all of them.
        """
        me = threading.current_thread()
        attempt = executed_here()
        if attempt is not None and attempt.is_of(self._terms, queue):
            return True
        return any(service.current for service in self.services()) or any(
            producer.executor.owns(me)
            for producer in list(self._producers.values())
            if queue in {None, producer.queue}
        )

    def services(self) -> list[Service]:
        """Return all whose threads there should be, if they were started."""
        return [
            self._heartbeat,
            self._watchdog,
            self._completer,
            *list(self._producers.values()),
            self._poller,
            self._keeper,
            self._elector,
            self._stand_in,
            self._stocktaker,
            self._notifier,
            self._deadline,
            self._loop,
            *self._maintenance_services,
        ]

    def hurry(self) -> None:
        """Let a stop under way wait no longer: running jobs are cancelled now."""
        self._hurried.set()

    def wake(self, name: str) -> bool:
        """Look for jobs of queue `name` now, if it is worked here; return whether it is."""
        producer = self._producers.get(name)
        if producer is not None:
            producer.wake()
        return producer is not None

    def wake_periodic(self) -> None:
        """Look at the periodic jobs now, if this client leads: they have changed."""
        self._periodic.wake()

    def cancel(self, job_id: int) -> None:
        """Tell the attempt at `job_id` to end, if it runs here."""
        for producer in list(self._producers.values()):
            if producer.cancel(job_id, JobCancelledRemotely()):
                return

    def pause(self, name: str, *, paused: bool) -> None:
        """Claim nothing more from the queue `name`, or again; "*" for every queue."""
        with self._pausing:
            if name in {ALL, *self._producers}:
                self._told[name] = self._settings.clock.monotonic()
            self._set_paused(name, paused=paused)

    def running_jobs(self) -> list[JobRow]:
        """Return the jobs that run here now."""
        return [attempt.job for attempt in self._attempts()]

    def _claimed(self) -> list[Claim]:
        """Return the jobs that were claimed here and have not ended."""
        with self._lock:
            self._left = [producer for producer in self._left if producer.claimed()]
            producers = [*self._producers.values(), *self._left]
        return [job for producer in producers for job in producer.claimed()]

    def _unwritten(self) -> set[tuple[int, int]]:
        """Return, by job and attempt, what was claimed here and whose outcome is not written."""
        # In this order: an attempt that finishes is the completer's before it leaves its slot.
        claimed = {(job.id, job.attempt) for job in self._claimed()}
        return claimed | self._completer.held_attempts

    def _attempts(self) -> list[Attempt]:
        producers = list(self._producers.values())
        return [attempt for producer in producers for attempt in producer.executor.running()]

    def _slots(self) -> int:
        return sum(producer.config.max_workers for producer in self._producers.values())

    def _check_slots(self) -> None:
        """Say so if the workers' pool has fewer connections than slots, and what would fit."""
        engine = self._worker_engine
        engine.slots = slots = self._slots()
        takers = {worker.executor for worker in self._settings.workers if worker.session}
        # Of the others nobody knows whether they call ctx.transaction(), so they are no reason.
        for executor in sorted(takers):
            pool = engine.pool if executor is Executor.thread else self._makers.async_pool(engine)
            have = capacity(pool)
            if have is not None and have < slots:
                logger.warning("workers may wait for sessions: %s", too_few(pool, slots))

    def _replace(self, attempt: Attempt) -> None:
        producer = self._producers.get(attempt.claimed.queue)
        if producer is not None and producer.replace(attempt):
            logger.info("opened a slot in place of a stuck one of queue %s", producer.queue)

    def _expect(self, queue: str, due_monotonic: float) -> None:
        producer = self._producers.get(queue)
        if producer is not None:
            producer.expect(due_monotonic)

    def _producer(self, name: str, config: QueueConfig) -> Producer:
        settings, interval = self._settings, config.poll_interval
        return Producer(
            name,
            config,
            engine=self._claims,
            schema=settings.schema,
            client_id=settings.client_id,
            poll_interval_s=(
                settings.poll_interval_s
                if interval is None
                else check_duration("poll_interval", interval, 0.01)
            ),
            make_attempt=self._attempt,
            rescue_after_s=settings.rescue_after_s,
            crowded=lambda: self._processes.waiting > 0,
            processes=self._processes if self._only_processes() else None,
            on_failed=self._stocktaker.wake,
            completer=self._completer,
            loop=self._loop,
            hub=settings.hub,
            clock=settings.clock,
            rng=settings.rng,
        )

    def _only_processes(self) -> bool:
        """Return whether every worker asks for a process."""
        workers = map(self._settings.workers.find, self._settings.workers.kinds)
        executors = {worker.executor for worker in workers if worker is not None}
        return executors == {Executor.process}

    def _maintenance(self) -> list[Service]:
        settings, engine = self._settings, self._upkeep
        schema, rng = settings.schema, settings.rng
        services: list[Service] = [
            JobScheduler(engine, schema=schema, clock=settings.clock, rng=rng),
            self._rescuer(stuck_s=settings.rescue_after_s),
            JobCleaner(
                engine,
                cancelled_s=settings.retention_s["cancelled"],
                completed_s=settings.retention_s["completed"],
                discarded_s=settings.retention_s["discarded"],
                schema=schema,
                clock=settings.clock,
                rng=rng,
            ),
            QueueCleaner(engine, schema=schema, rng=rng),
            self._periodic,
        ]
        if settings.reindexer_schedule is not None:
            services.append(
                Reindexer(
                    self._connections.sessions,
                    names=settings.reindexer_index_names,
                    schedule=settings.reindexer_schedule,
                    timeout_s=settings.reindexer_timeout_s,
                    schema=schema,
                    clock=settings.clock,
                )
            )
        return services

    def _rescuer(self, *, stuck_s: float | None) -> JobRescuer:
        settings = self._settings
        return JobRescuer(
            self._upkeep,
            stuck_s=stuck_s,
            backoff=lambda kind: settings.workers.backoff(kind) or settings.backoff,
            timeouts_s=lambda: {kind: settings.timeout_s(kind) for kind in settings.workers.kinds},
            schema=settings.schema,
            rng=settings.rng,
        )

    def _attempt(self, job: ClaimedJob, claimed_monotonic: float) -> Attempt:
        return Attempt(self._terms, job, claimed_monotonic)

    def _context(self, job: JobRow | ClaimedJob, claimed_monotonic: float) -> JobContext:
        settings = self._settings
        return JobContext(
            job,
            clock=settings.clock,
            claimed_monotonic=claimed_monotonic,
            timeout_s=settings.timeout_s(job.kind),
            engine=self._worker_engine,
            schema=settings.schema,
            client=settings.client,
            makers=self._makers,
        )

    def _stop_attempts(self, producers: Sequence[Producer], soft_s: float | None) -> list[JobRow]:
        for producer in producers:
            try:
                producer.give_back()
            except SQLAlchemyError as error:
                logger.warning("not given back, to be rescued: %s", reason(error))
        deadline = float("inf") if soft_s is None else time.monotonic() + soft_s
        while not self._hurried.is_set() and time.monotonic() < deadline:
            # In steps, so that hurry() is noticed.
            step = min(deadline, time.monotonic() + 0.1)
            if all(producer.executor.wait_idle(step) for producer in producers):
                break
        for producer in producers:
            producer.cancel_all(ClientStopping())
        end = time.monotonic() + self._settings.hard_stop_timeout_s
        for producer in producers:
            producer.executor.stop(end)
        return [attempt.job for producer in producers for attempt in producer.executor.running()]

    def _hear(self, topic: Topic, payload: Mapping[str, Any]) -> None:
        # Any role that may connect may send these. They say where to look, and nothing else.
        name, action, job_id = payload.get("queue"), payload.get("action"), payload.get("job_id")
        producer = self._producers.get(name) if isinstance(name, str) else None
        if topic is Topic.leadership:
            self._elector.hear(payload)
        elif topic is Topic.insert:
            if producer is not None:
                producer.hint()
        elif action == "cancel" and isinstance(job_id, int):
            if any(each.may_have(job_id) for each in list(self._producers.values())):
                self._keeper.check(job_id)
        elif action in ("pause", "resume") and (producer is not None or name == ALL):
            self._keeper.wake()

    def _listening(self) -> None:
        # What was said while nobody listened is lost: look in its place.
        self._keeper.wake()
        self._poller.wake()

    def _set_paused(self, name: str, *, paused: bool) -> None:
        for producer in list(self._producers.values()):
            # Not asked where nothing changes: to pause one waits for a claim under way.
            change = name in (ALL, producer.queue) and producer.paused != paused
            if change and producer.pause(paused):
                logger.info("%s queue %s", "paused" if paused else "resumed", producer.queue)
                event = (QueuePaused if paused else QueueResumed)(queue=producer.queue)
                self._settings.hub.publish(event)

    def _read(self, rows: Sequence[QueueRow], began: float) -> None:
        for row in rows:
            with self._pausing:
                # What was told since the read began may be news to what was read.
                told = max(self._told.get(row.name, began - 1), self._told.get(ALL, began - 1))
                if told < began:
                    self._set_paused(row.name, paused=row.paused_at is not None)

    def _lose_loop(self) -> None:
        for producer in list(self._producers.values()):
            producer.executor.lose_loop()

    def _cancel_all(self, reason: AttemptInterrupted) -> None:
        for producer in list(self._producers.values()):
            producer.cancel_all(reason)

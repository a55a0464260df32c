"""Step 2 of 5, notify: all threads of a running client, and which of them a notification wakes.

One module, although long: most of it makes the threads, and starts and stops them in their order.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from riverrun.config import ClientConfig, QueueConfig
from riverrun.db.async_engine import AsyncEngineBeside
from riverrun.db.statement_timeout import SINGLE, with_timeout
from riverrun.db.worker_engine import WorkerEngine, capacity, too_few
from riverrun.errors import ClientStopping
from riverrun.events import Hub
from riverrun.execution.attempt import executed_here
from riverrun.execution.attempt_state import ContextParts
from riverrun.execution.attempts import Attempts
from riverrun.execution.processes import ProcessPool
from riverrun.execution.worker_session import SessionMakers
from riverrun.execution.workers import Executor
from riverrun.jobs.row import JobRow
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.maintenance.elector import Elector
from riverrun.maintenance.job_rescuer import JobRescuer, StandIn
from riverrun.maintenance.leader_services import leader_services
from riverrun.maintenance.leadership import Leadership
from riverrun.maintenance.maintainer import Maintainer
from riverrun.maintenance.periodic_job_inserter import PeriodicJobInserter
from riverrun.periodic_jobs import PeriodicJobs
from riverrun.runtime.completer import BACKLOG_MAX, Completer
from riverrun.runtime.connections import Connections
from riverrun.runtime.event_loop import LoopThread
from riverrun.runtime.health import Health
from riverrun.runtime.heartbeat import Heartbeat
from riverrun.runtime.notifier import Notifier
from riverrun.runtime.poller import Poller
from riverrun.runtime.producer import Producer
from riverrun.runtime.producers import Producers
from riverrun.runtime.queue_reporter import QueueReporter, unworked_problem
from riverrun.runtime.service import Service
from riverrun.runtime.statement_canceller import StatementCanceller
from riverrun.runtime.stocktaker import Stocktaker
from riverrun.runtime.stuck_jobs import StuckJobs
from riverrun.runtime.vitals import Vitals
from riverrun.verbs.queues import ALL
from riverrun.wire.topics import Topic

logger = logger_of(__name__)

FLUSH_S = 10.0
"""Seconds that the last outcomes may take to be written at a stop."""

ANSWER_S = 30.0
"""Seconds after which a statement that works jobs is given up; it normally takes milliseconds."""

PATIENCE_S = 5.0
"""Seconds that services may take to stop before their statements are cancelled.

A statement may wait for a lock, and its own time limit is longer.
"""

CONNECT_S = 10
"""Seconds that each try to connect may take while the client works."""

HURRIED_CONNECT_S = 5
"""Seconds that each try to connect may take once a stop has nothing to do but to write."""

DISPOSE_S = 5.0
"""Seconds that closing the connections of workers' AsyncSessions may take at a stop."""

SIGN_S = 4.0
"""Seconds after which a heartbeat's or an election's statement is given up.

The next statement is then still in time: within 15 s for heartbeats, within 14 s for elections.
"""

MAINTENANCE_S = 60.0
"""Seconds after which a batch of maintenance is given up: twice what River 0.51 allows it."""


class Services:
    """The threads that work queues: producers claim, slots execute, the completer writes.

    An elector stands for election as the leader.

    Args:
        config: The client's options.
        queues: How each queue is worked, by name.
        own: The client's own connections.
        client: The client that workers use to insert jobs.
        client_id: The name under which it has signed on.
        instance: A text that differs for each start of a client.
        hub: Where events go.
        periodic_jobs: The jobs that the client inserts while it leads.
    """

    def __init__(
        self,
        config: ClientConfig,
        queues: Mapping[str, QueueConfig],
        own: Connections,
        *,
        client: Any,
        client_id: str,
        instance: str,
        hub: Hub,
        periodic_jobs: PeriodicJobs,
    ) -> None:
        assert config.workers is not None  # noqa: S101  start() has checked it
        self._config = config
        self._workers = config.workers
        self._connections = own
        self._client_id = client_id
        self._hub = hub
        self._hurried = threading.Event()
        clock, rng, schema = config.clock, config.rng, config.schema
        # A transaction of one statement needs no BEGIN and no COMMIT around it.
        signs = with_timeout(own.signs, ANSWER_S, **{SINGLE: True})
        self._claims = with_timeout(own.claims, ANSWER_S, **{SINGLE: True})
        maintenance = with_timeout(own.maintenance, MAINTENANCE_S)
        self.producers = Producers(hub=hub, clock=clock)
        self.completer = Completer(
            signs,
            on_due=self.producers.expect,
            schema=schema,
            hub=hub,
            clock=clock,
            rng=rng,
            deletes=config.completed_retention_s == 0,
            owner=client_id,
        )
        self._loop = LoopThread(on_lost=self.producers.lose_loop)
        vitals = Vitals(
            self.producers, self._loop, workers=config.workers, plugins=config.plugins, clock=clock
        )
        self.health = Health(self.producers, self.completer, vitals)
        self._processes = ProcessPool(config.processes)
        self._worker_engine = WorkerEngine(config.engine, slots=0)
        self._async_engine = AsyncEngineBeside(config.engine, pooled=True)
        self._makers = SessionMakers(
            sync=config.sessionmaker,
            async_=config.async_sessionmaker,
            async_engine=self._async_engine,
        )
        self._attempts = Attempts(
            workers=config.workers,
            backoff=config.backoff,
            job_timeout_s=config.job_timeout_s,
            plugins=config.plugins,
            error_handler=config.error_handler,
            hub=hub,
            parts=ContextParts(
                clock=clock,
                engine=self._worker_engine,
                schema=schema,
                client=client,
                makers=self._makers,
            ),
            processes=self._processes,
        )
        self.heartbeat = Heartbeat(
            with_timeout(own.signs, SIGN_S, **{SINGLE: True}),
            client_id=client_id,
            instance=instance,
            producers=self.producers,
            completer=self.completer,
            health=self.health,
            rescue_after_s=config.rescue_after_s,
            schema=schema,
            clock=clock,
            rng=rng,
        )
        self._stuck_jobs = StuckJobs(
            heartbeat=self.heartbeat,
            health=self.health,
            producers=self.producers,
            handler=config.job_stuck_handler,
            threshold_s=config.job_stuck_threshold_s,
            clock=clock,
        )
        self.heartbeat.watch_over(self._stuck_jobs)
        self._statement_canceller = StatementCanceller(clock=clock)
        self.queue_reporter = QueueReporter(
            signs,
            producers=self.producers,
            poll_only=config.poll_only,
            schema=schema,
            clock=clock,
            rng=rng,
        )
        self.poller = Poller(
            self._claims, producers=self.producers, schema=schema, clock=clock, rng=rng
        )
        self.stocktaker = Stocktaker(
            self._claims,
            client_id=client_id,
            instance=instance,
            producers=self.producers,
            completer=self.completer,
            schema=schema,
            clock=clock,
            rng=rng,
        )
        self._notifier = Notifier(
            with_timeout(own.sessions, ANSWER_S),
            schema=schema,
            on_notification=self._notified,
            on_listening=self._listening,
            rng=rng,
        )
        leadership = Leadership(clock)
        services = leader_services(
            config,
            engine=maintenance,
            sessions=own.sessions,
            attempts=self._attempts,
            periodic_jobs=periodic_jobs,
            leadership=leadership,
        )
        [self._periodic_job_inserter] = [
            service for service in services if isinstance(service, PeriodicJobInserter)
        ]
        self.elector = Elector(
            with_timeout(own.signs, SIGN_S),
            client_id=client_id,
            schema=schema,
            leadership=leadership,
            maintainer=Maintainer(services),
            heartbeat=self.heartbeat,
            clock=clock,
            rng=rng,
        )
        self._stand_in = StandIn(
            JobRescuer(maintenance, stuck_s=None, attempts=self._attempts, schema=schema, rng=rng),
            heartbeat=self.heartbeat,
            rng=rng,
        )
        self.health.watch(
            self.heartbeat,
            self._stuck_jobs,
            self.poller,
            self.queue_reporter,
            self.elector,
            self._stand_in,
            self.stocktaker,
            self._notifier,
            self._statement_canceller,
            self._loop,
            *services,
        )
        for name, queue in queues.items():
            self.producers.add(self._producer(name, queue))

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
        self._check_slots()
        # The heartbeat comes before any claim, so that the others always know the client of a
        # running job.
        self.heartbeat.run_once()
        self.queue_reporter.report(self.producers.names)
        self._statement_canceller.start()
        if not self._config.poll_only:
            self._notifier.start()
        self.queue_reporter.start()
        self.poller.start()
        self.completer.start()
        self._stuck_jobs.start()
        self.stocktaker.start()
        self.heartbeat.start()
        self._stand_in.start()
        for producer in self.producers:
            producer.start()
        if not self._config.leader_election_disabled:
            self.elector.start()
        self._connections.limit_connects(CONNECT_S)

    def stop(self, soft_s: float | None) -> list[JobRow]:
        """Stop in the order of a job's steps: claim no more, finish attempts, write outcomes.

        Then resign as the leader, sign off and stop listening.

        Args:
            soft_s: Seconds that running jobs may take before they are cancelled; None for as long
                as they need.

        Returns:
            The jobs that run on although cancelled.
        """
        producers = self.producers.close()
        for producer in producers:
            producer.stopping.set()
            producer.interrupt()
        self._end(*producers)
        left = self._stop_attempts(producers, soft_s)
        self._connections.limit_connects(HURRIED_CONNECT_S)
        self._stuck_jobs.stop()
        services = (self.stocktaker, self.poller, self.queue_reporter, self._stand_in)
        for service in (*services, self._notifier):
            service.stopping.set()
        self._end(self.stocktaker, self.poller)
        if self._async_engine.is_made:
            self._loop.run_soon(self._async_engine.dispose, DISPOSE_S)
        self._loop.stop(0.0 if left else None)
        self._processes.stop()
        self._end(self.queue_reporter, self.elector, self._stand_in)
        written = self.completer.stop(FLUSH_S)
        if written:
            self.stocktaker.finish()
        else:
            # The database does not answer, and would not for the last look, either.
            self.completer.gave_up.set()
            self.completer.stop()
        self.heartbeat.stop()
        if written and not left and not self.heartbeat.name_taken:
            self.heartbeat.leave()
        self._notifier.stop()
        self._statement_canceller.stop()
        self._connections.close()
        return left

    def add(self, name: str, config: QueueConfig) -> None:
        """Work the queue `name`, too.

        Raises:
            ClientNotReady: If the client is being stopped.
            RuntimeError: If the process may have no more threads.
            sqlalchemy.exc.DBAPIError: If the queue's row cannot be written or read.
        """
        producer = self._producer(name, config)
        # Read before the producer claims: the queue may be paused.
        for row in self.queue_reporter.report([*self.producers.names, name]):
            if row.name == name:
                producer.pause(row.paused_at is not None)
        self.producers.add(producer, start=True)
        self._check_slots()

    def remove(self, name: str, soft_s: float | None) -> list[JobRow]:
        """Stop working the queue `name`; return the jobs that run on although cancelled.

        Args:
            name: The queue.
            soft_s: Seconds that its running jobs may take before they are cancelled.
        """
        producer = self.producers.get(name)
        if producer is None:
            return []
        producer.stop()
        left = self._stop_attempts([producer], soft_s)
        # Only now: until here its jobs must be reachable for cancellation and the heartbeat.
        self.producers.remove(producer)
        self._worker_engine.slots = self.producers.slots
        return left

    def problems(self) -> list[str]:
        """Return what keeps the client from being healthy, a sentence each."""
        found = self.health.problems()
        if self.heartbeat.name_taken:
            found.append("another client has taken its name, and it must be started again")
        elif not self.heartbeat.healthy:
            found.append("the database does not take heartbeats")
        return found + [unworked_problem(name) for name in self.queue_reporter.unworked]

    @property
    def beyond_repair(self) -> bool:
        """Whether the process should be replaced."""
        return self.heartbeat.name_taken or self.health.beyond_repair

    def is_own_thread(self, queue: str | None = None) -> bool:
        """Return whether a stop would wait for the calling thread.

        Args:
            queue: The queue that is to be removed; None for a stop of the whole client.
        """
        attempt = executed_here()
        if attempt is not None and attempt.is_of(self._attempts, queue):
            return True
        return any(service.current for service in self.health.services()) or self.producers.owns(
            threading.current_thread(), queue
        )

    def _end(self, *services: Service) -> None:
        """Stop services; cancel the statements of maintenance and of looks that take too long."""
        end = time.monotonic() + PATIENCE_S
        for service in services:
            while not service.stop(max(0.1, end - time.monotonic())):
                kept = {self.completer, self.heartbeat}
                self._statement_canceller.cancel(set(self.health.services()) - kept)

    def hurry(self) -> None:
        """Cancel running jobs now, without waiting any longer, during a stop under way."""
        self._hurried.set()

    def _check_slots(self) -> None:
        """Apply the number of slots, and warn if the workers' pool has fewer connections."""
        engine, slots = self._worker_engine, self.producers.slots
        engine.slots = slots
        ahead = sum(producer.config.claim_ahead for producer in self.producers)
        self.completer.backlog_max = max(BACKLOG_MAX, slots + ahead)
        # Whether another worker calls ctx.transaction() cannot be known, so only those that take
        # a session count.
        takers = {worker.executor for worker in self._workers if worker.session}
        for executor in sorted(takers):
            pool = engine.pool if executor is Executor.thread else self._makers.async_pool(engine)
            have = capacity(pool)
            if have is not None and have < slots:
                logger.warning("workers may wait for sessions: %s", too_few(pool, slots))

    def _producer(self, name: str, queue: QueueConfig) -> Producer:
        config = self._config
        return Producer(
            name,
            queue,
            engine=self._claims,
            client_id=self._client_id,
            config=config,
            attempts=self._attempts,
            processes=self._processes,
            completer=self.completer,
            on_failed=self.stocktaker.wake,
            loop=self._loop,
            hub=self._hub,
        )

    def _stop_attempts(self, producers: Sequence[Producer], soft_s: float | None) -> list[JobRow]:
        for producer in producers:
            try:
                producer.give_back(PATIENCE_S)
            except SQLAlchemyError as error:
                logger.warning(
                    "could not give back the jobs that have not begun; they will be rescued: %s",
                    reason(error),
                )
        deadline = float("inf") if soft_s is None else time.monotonic() + soft_s
        while not self._hurried.is_set() and time.monotonic() < deadline:
            # Wait in short steps, so that hurry() is noticed.
            step = min(deadline, time.monotonic() + 0.1)
            if all(producer.executor.wait_idle(step) for producer in producers):
                break
        for producer in producers:
            producer.cancel_all(ClientStopping())
        end = time.monotonic() + self._config.hard_stop_timeout_s
        for producer in producers:
            producer.executor.stop(end)
        return [attempt.job for producer in producers for attempt in producer.executor.running()]

    def _notified(self, topic: Topic, payload: Mapping[str, Any]) -> None:
        # Any role that may connect can send notifications. So they only prompt a look at the
        # rows; nothing in them is trusted.
        name, action, job_id = payload.get("queue"), payload.get("action"), payload.get("job_id")
        producer = self.producers.get(name)
        if topic is Topic.leadership:
            self.elector.notified(payload)
        elif topic is Topic.insert:
            if producer is not None:
                producer.hint()
        elif action == "cancel" and isinstance(job_id, int):
            if self.producers.may_have(job_id):
                self.queue_reporter.check(job_id)
        elif action in ("pause", "resume") and (producer is not None or name == ALL):
            self.queue_reporter.wake()
        elif action == "run_periodic" and self.elector.leads:
            self._periodic_job_inserter.hint()

    def _listening(self) -> None:
        # Notifications that were sent before the connection listened are lost: look instead.
        self.queue_reporter.wake()
        self.poller.wake()
        if self.elector.leads:
            self._periodic_job_inserter.hint()

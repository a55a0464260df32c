"""Launcher: starts and stops a client's services. It exists for the client's whole life.

One state is kept under one lock: which queues the client is to work, and whether it is starting,
running or stopping. No thread blocks while it holds the lock, so that queues can be added while
others are being removed. In a forked child the lock is renewed here and nowhere else.
"""

import os
import random
import secrets
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from sqlalchemy.exc import DBAPIError

from riverrun.client.services import Services
from riverrun.config import ClientConfig, QueueConfig
from riverrun.db.engines import address, identity
from riverrun.db.statement_timeout import SINGLE, Waiting, with_timeout
from riverrun.db.transactions import own_connection
from riverrun.errors import ClientNotReady, InvalidOption, StartTimeout
from riverrun.events import Hub
from riverrun.jobs.row import JobRow
from riverrun.logs.loggers import logger_of
from riverrun.periodic_jobs import PeriodicJobs
from riverrun.runtime.connections import Connections
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.runtime.statement_canceller import StatementCanceller
from riverrun.verbs.beat import sign_on
from riverrun.verbs.claim import claim

logger = logger_of(__name__)

STATEMENT_S = 30.0
"""Seconds that each statement of a start may take."""

_NO_QUEUE = "riverrun_no_such_queue"
"""The queue of the claim with which a start tests the schema. The claim must find no job, because a
trigger of the application may refuse one, which must not keep the client from working the
others."""


class State(Enum):
    """What a client's services are doing."""

    stopped = auto()
    starting = auto()
    running = auto()
    stopping = auto()


class Launcher:
    """Starts and stops a client's services, and changes which queues they work.

    Args:
        queues: How each queue is worked, by name.

    Attributes:
        stopped: Set once a stop is over.
    """

    def __init__(self, queues: Mapping[str, QueueConfig]) -> None:
        self._queues = dict(queues)
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()  # guards all below, and _queues
        self._state = State.stopped
        self._services: Services | None = None
        self._by: int | None = None  # the thread that starts or stops the services
        self._stop_asked: tuple[float | None] | None = None  # by a signal handler, while it starts
        self._adding: set[str] = set()
        self._removing: set[str] = set()
        self.stopped = threading.Event()

    def forked(self) -> None:
        """Start afresh in a forked child: threads, connections and locks stay the parent's."""
        removing = self._removing
        self._reset()
        for name in removing:
            self._queues.pop(name, None)

    @property
    def services(self) -> Services | None:
        """The services, while they run."""
        return self._services

    def wake(self, queue: str) -> bool:
        """Look for jobs of `queue` now; return whether this client works it."""
        services = self._services
        return services is not None and services.producers.wake(queue)

    @property
    def queues(self) -> Mapping[str, QueueConfig]:
        """How each queue is worked, by name."""
        return self._queues

    def start(self, config: ClientConfig, *, client: Any, hub: Hub, jobs: PeriodicJobs) -> bool:
        """Start working the queues; return False if they are worked already.

        Return False, too, if a signal handler has stopped the client before it had started.

        Args:
            config: The client's options.
            client: The client. Its `id` becomes the name under which it has signed on.
            hub: Where events go.
            jobs: The periodic jobs, which the client inserts while it leads.

        Raises:
            ClientNotReady: If there is no queue, or a signal handler has interrupted this thread's
                own start or stop.
            InvalidOption: If `listen_engine` leads to another database.
            SchemaMissing: If River's tables are missing.
            StartTimeout: If the database does not answer a statement within 30 s.
            sqlalchemy.exc.OperationalError: If the database cannot be reached.
        """
        with self._changed:
            if self._by == threading.get_ident():
                problem = (
                    "start() in a signal handler that has interrupted a start or stop would wait"
                )
                raise ClientNotReady(f"{problem} for ever; call it outside the handler")
            self._changed.wait_for(lambda: self._state in {State.stopped, State.running})
            if self._state is State.running:
                return False
            if not self._queues:
                problem = 'no queue to work; pass queues={"default": QueueConfig()} to the Client'
                raise ClientNotReady(problem)
            self._state, self._by = State.starting, threading.get_ident()
            queues = dict(self._queues)
            self.stopped.clear()
        try:
            services = self._started(config, queues, client, hub, jobs)
        except BaseException:
            with self._changed:
                self._state, self._by, self._stop_asked = State.stopped, None, None
                self._changed.notify_all()
            raise
        try:
            self._catch_up(services)
        except BaseException:
            self._stop(services, 0.0)
            raise
        with self._changed:
            self._by, asked, self._stop_asked = None, self._stop_asked, None
        if asked is not None:
            self.stop(*asked)
        return asked is None

    def stop(self, soft_s: float | None) -> list[JobRow] | None:
        """Stop working; return the jobs that run on although cancelled.

        Return None if the client was not running. A start under way is awaited first. In a signal
        handler that has interrupted this thread's own start or stop, return None at once: a start
        then stops when it has started, and a stop goes on, and cancels running jobs now if `soft_s`
        is 0.

        Args:
            soft_s: Seconds that running jobs may take before they are cancelled; None for as long
                as they need.

        Raises:
            ClientNotReady: If one of the client's own threads calls it.
        """
        services = self._services
        if services is not None and services.is_own_thread():
            advice = "call it in a thread of its own: threading.Thread(target=client.stop).start()"
            raise ClientNotReady(f"stop() in a worker would wait for that worker; {advice}")
        with self._changed:
            if self._by == threading.get_ident():
                if self._state is State.starting or self._state is State.running:
                    self._stop_asked = (soft_s,)
                elif services is not None and soft_s == 0.0:
                    services.hurry()
                return None
            self._changed.wait_for(lambda: self._state in {State.stopped, State.running})
            services = self._services
            if services is None:
                self.stopped.set()
                return None
            self._state, self._by = State.stopping, threading.get_ident()
        return self._stop(services, soft_s)

    def add(self, name: str, config: QueueConfig) -> None:
        """Work the queue `name`, too; while the client is starting, as soon as it has started.

        Raises:
            InvalidOption: If it is worked already.
            ClientNotReady: If the client is being stopped.
        """
        with self._changed:
            if name in self._queues:
                raise InvalidOption("queue", name, "a queue that this client does not work yet")
            if self._state is State.stopping:
                raise ClientNotReady("the client is being stopped; add queues before or after")
            self._queues[name] = config
            services = self._services
            if services is None:
                return
            self._adding.add(name)
        try:
            services.add(name, config)
        except BaseException:
            with self._changed:
                self._queues.pop(name, None)
            raise
        finally:
            with self._changed:
                self._adding.discard(name)
                self._changed.notify_all()

    def remove(self, name: str, soft_s: float | None) -> list[JobRow]:
        """Stop working the queue `name`; return its jobs that run on although cancelled.

        Args:
            name: The queue.
            soft_s: Seconds that its running jobs may take before they are cancelled; None for as
                long as they need.

        Raises:
            ClientNotReady: If one of its workers calls it, or it is being removed already.
            InvalidOption: If it is not worked.
        """
        services = self._services
        if services is not None and services.is_own_thread(name):
            advice = "call it in a thread of its own: threading.Thread(target=...).start()"
            raise ClientNotReady(
                f"remove({name!r}) in a worker would wait for that worker; {advice}"
            )
        with self._changed:
            # If the queue is just being added, it is known in a moment whether that succeeds.
            self._changed.wait_for(lambda: name not in self._adding)
            if name in self._removing:
                raise ClientNotReady(f"queue {name!r} is being removed already")
            if name not in self._queues:
                raise InvalidOption("queue", name, f"one of {', '.join(sorted(self._queues))}")
            services = self._services
            if services is None:
                del self._queues[name]
                return []
            self._removing.add(name)
        try:
            # Without the lock: its jobs may take long, and other queues can change meanwhile.
            return services.remove(name, soft_s)
        finally:
            with self._changed:
                self._removing.discard(name)
                self._queues.pop(name, None)
                self._changed.notify_all()

    def _catch_up(self, services: Services) -> None:
        """Apply what was added to and removed from the queues while the services started."""
        while True:
            with self._changed:
                wanted, worked = dict(self._queues), set(services.producers.names)
                if wanted.keys() == worked:
                    self._services, self._state = services, State.running
                    self._changed.notify_all()
                    return
            for name in wanted.keys() - worked:
                services.add(name, wanted[name])
            for name in worked - wanted.keys():
                services.remove(name, 0.0)

    def _started(
        self,
        config: ClientConfig,
        queues: Mapping[str, QueueConfig],
        client: Any,
        hub: Hub,
        jobs: PeriodicJobs,
    ) -> Services:
        """Return running services, signed on under a name that no other client has."""
        own = Connections(config.engine, config.listen_engine or config.engine)
        canceller = StatementCanceller(
            clock=config.clock, thread=threading.get_ident(), least_s=STATEMENT_S
        )
        try:
            canceller.start()
            instance = secrets.token_hex(8)
            _check_schema(config, own, client.id)
            name = sign_on(
                with_timeout(own.signs, STATEMENT_S, **{SINGLE: True}),
                client.id,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                dead_s=DEAD_S,
                instance=instance,
                schema=config.schema,
            )
            if name != client.id:
                message = (
                    "another client named %s runs, or has left jobs that are not rescued yet; this "
                    "client takes the name %s"
                )
                logger.warning(message, client.id, name, extra={"client_id": name})
            client.id = name
            services = Services(
                config,
                queues,
                own,
                client=client,
                client_id=name,
                instance=instance,
                hub=hub,
                periodic_jobs=jobs,
            )
            services.start()
        except BaseException as error:
            own.close()
            if canceller.cancelled and isinstance(error, DBAPIError):
                raise StartTimeout(STATEMENT_S) from error
            raise
        finally:
            canceller.stop()
        return services

    def _stop(self, services: Services, soft_s: float | None) -> list[JobRow]:
        try:
            try:
                return services.stop(soft_s)
            except BaseException:
                # Such as a second Ctrl-C. Threads that are left would keep the process alive.
                services.stop(0.0)
                raise
        finally:
            with self._changed:
                self._services, self._state, self._by = None, State.stopped, None
                self._stop_asked = None
                self.stopped.set()
                self._changed.notify_all()


def _check_schema(config: ClientConfig, own: Connections, client_id: str) -> None:
    # A claim that is rolled back uses every column and function that working needs. The connection
    # is the one that claims next, and its server process knows the tables by then.
    claims = with_timeout(own.claims, STATEMENT_S)
    with Waiting(claims), own_connection(claims) as connection:
        claim(connection, _NO_QUEUE, limit=1, client_id=client_id, schema=config.schema)
        connection.rollback()
    if config.listen_engine is not None:
        # On another database it would listen for ever and receive nothing.
        with own.sessions.connect() as connection, own.signs.connect() as other:
            same = identity(connection) == identity(other)
        if not same:
            there, here = address(config.listen_engine), address(config.engine)
            raise InvalidOption("listen_engine", there, f"the database behind {here}")


def default_id() -> str:
    """Return a name that no other client has: the host, the time and random digits.

    Source of the form: River 0.51, client.go. The random digits are added, so that two clients of
    one instant differ.
    """
    host = socket.gethostname().replace(".", "_")[:60]
    start = datetime.now(UTC).strftime("%Y_%m_%dT%H_%M_%S_%f")
    return f"{host}_{start}_{random.getrandbits(24):06x}"

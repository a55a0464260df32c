"""Launcher: a client's working part for the client's whole life, whether it works or not.

One state under one lock: which queues it is to work, and whether it starts, works or stops. Nothing
waits while it holds the lock, so that queues can be added while others are being removed, and the
lock is renewed in a forked child, here alone.
"""

import logging
import os
import socket
import threading
from collections.abc import Mapping
from enum import Enum, auto

import attrs

from riverrun.client.crew import Crew, Settings
from riverrun.config import QueueConfig
from riverrun.db.engines import address, identity
from riverrun.db.statement_timeout import SINGLE
from riverrun.db.transactions import own_connection
from riverrun.errors import ClientNotReady, InvalidOption
from riverrun.jobs.row import JobRow
from riverrun.runtime.connections import Connections
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.verbs.beat import sign_on
from riverrun.verbs.claim import claim

logger = logging.getLogger(__name__)


class State(Enum):
    """What a client's working part does."""

    stopped = auto()
    starting = auto()
    running = auto()
    stopping = auto()


class Launcher:
    """Starts and stops a client's crew, and changes what it works.

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
        self._crew: Crew | None = None
        self._adding: set[str] = set()
        self._removing: set[str] = set()
        self.stopped = threading.Event()

    def forked(self) -> None:
        """Be a forked child's: the parent's threads, connections and locks stay the parent's."""
        removing = self._removing
        self._reset()
        for name in removing:
            self._queues.pop(name, None)

    @property
    def crew(self) -> Crew | None:
        """Those who work, while they do."""
        return self._crew

    @property
    def queues(self) -> Mapping[str, QueueConfig]:
        """How each queue is worked, by name."""
        return self._queues

    def start(self, settings: Settings) -> bool:
        """Start working the queues; return False if they are worked already.

        Raises:
            ClientNotReady: If there is no queue.
            InvalidOption: If `listen_engine` leads to another database.
            SchemaMissing: If the tables are not there.
            sqlalchemy.exc.OperationalError: If the database cannot be reached.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state in {State.stopped, State.running})
            if self._state is State.running:
                return False
            if not self._queues:
                problem = 'no queue to work; pass queues={"default": QueueConfig()} to the Client'
                raise ClientNotReady(problem)
            self._state = State.starting
            queues = dict(self._queues)
            self.stopped.clear()
        try:
            crew = _started(settings, queues)
        except BaseException:
            with self._changed:
                self._state = State.stopped
                self._changed.notify_all()
            raise
        try:
            self._catch_up(crew)
        except BaseException:
            self._stop(crew, 0.0)
            raise
        return True

    def stop(self, soft_s: float | None) -> list[JobRow] | None:
        """Stop working, after a start under way; return the jobs that run on although cancelled.

        None if nothing was worked.

        Args:
            soft_s: Seconds that running jobs may take before they are cancelled; None for as long
                as they need.

        Raises:
            ClientNotReady: If one of the client's own threads calls it.
        """
        crew = self._crew
        if crew is not None and crew.works_here():
            advice = "call it in a thread of its own: threading.Thread(target=client.stop).start()"
            raise ClientNotReady(f"stop() in a worker would wait for that worker; {advice}")
        with self._changed:
            self._changed.wait_for(lambda: self._state in {State.stopped, State.running})
            crew = self._crew
            if crew is None:
                self.stopped.set()
                return None
            self._state = State.stopping
        return self._stop(crew, soft_s)

    def add(self, name: str, config: QueueConfig) -> None:
        """Work the queue `name` too; while the client starts, once it has.

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
            crew = self._crew
            if crew is None:
                return
            self._adding.add(name)
        try:
            crew.add(name, config)
        except BaseException:
            with self._changed:
                self._queues.pop(name, None)
            raise
        finally:
            with self._changed:
                self._adding.discard(name)
                self._changed.notify_all()

    def remove(self, name: str, soft_s: float | None) -> list[JobRow]:
        """Work the queue `name` no more; return its jobs that run on although cancelled.

        Args:
            name: The queue.
            soft_s: Seconds that its running jobs may take before they are cancelled; None for as
                long as they need.

        Raises:
            ClientNotReady: If one of its workers calls it, or it is being removed already.
            InvalidOption: If it is not worked.
        """
        crew = self._crew
        if crew is not None and crew.works_here(name):
            advice = "call it in a thread of its own: threading.Thread(target=...).start()"
            raise ClientNotReady(
                f"remove({name!r}) in a worker would wait for that worker; {advice}"
            )
        with self._changed:
            # Of one that is just being added, and whose outcome is known in a moment.
            self._changed.wait_for(lambda: name not in self._adding)
            if name in self._removing:
                raise ClientNotReady(f"queue {name!r} is being removed already")
            if name not in self._queues:
                raise InvalidOption("queue", name, f"one of {', '.join(sorted(self._queues))}")
            crew = self._crew
            if crew is None:
                del self._queues[name]
                return []
            self._removing.add(name)
        try:
            # Its jobs may take long: others are added and removed meanwhile.
            return crew.remove(name, soft_s)
        finally:
            with self._changed:
                self._removing.discard(name)
                self._queues.pop(name, None)
                self._changed.notify_all()

    def _catch_up(self, crew: Crew) -> None:
        """Let `crew` work what was added while it started, and no more what was removed."""
        while True:
            with self._changed:
                wanted, worked = dict(self._queues), crew.queues
                if wanted.keys() == worked:
                    self._crew, self._state = crew, State.running
                    self._changed.notify_all()
                    return
            for name in wanted.keys() - worked:
                crew.add(name, wanted[name])
            for name in worked - wanted.keys():
                crew.remove(name, 0.0)

    def _stop(self, crew: Crew, soft_s: float | None) -> list[JobRow]:
        try:
            return crew.stop(soft_s)
        finally:
            with self._changed:
                self._crew, self._state = None, State.stopped
                self.stopped.set()
                self._changed.notify_all()


def _started(settings: Settings, queues: Mapping[str, QueueConfig]) -> Crew:
    """Return a crew that works, under a name that no other client has."""
    own = Connections(settings.engine, settings.listen_engine)
    try:
        _check_schema(settings, own)
        name = sign_on(
            own.signs.execution_options(**{SINGLE: True}),
            settings.client_id,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            dead_s=DEAD_S,
            schema=settings.schema,
        )
        if name != settings.client_id:
            message = "a client %s lives, or has left jobs to be rescued; this one is %s"
            logger.warning(message, settings.client_id, name, extra={"client_id": name})
        settings.client.id = name
        crew = Crew(attrs.evolve(settings, client_id=name), queues, own)
        crew.start()
    except BaseException:
        own.close()
        raise
    return crew


def _check_schema(settings: Settings, own: Connections) -> None:
    # One claim of nothing touches every column and function that working needs.
    with own_connection(own.signs) as connection:
        claim(connection, "default", limit=1, client_id=settings.client_id, schema=settings.schema)
        connection.rollback()
    if settings.listen_engine is not settings.engine:
        # On another database it would listen for ever, and hear nothing.
        with own.sessions.connect() as connection, own.signs.connect() as other:
            same = identity(connection) == identity(other)
        if not same:
            there, here = address(settings.listen_engine), address(settings.engine)
            raise InvalidOption("listen_engine", there, f"the database behind {here}")

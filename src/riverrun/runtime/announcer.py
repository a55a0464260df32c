"""Step 2 of 5: notify, the telling side. Before: insert. After: notifier.

A transaction that notifies takes a lock on the whole database while it commits. So the inserting
transaction only leaves word here; when it has committed, this thread tells, once for all that
committed meanwhile, on a connection of its own.
"""

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from sqlalchemy import Connection, Engine, event

from riverrun.clock import Clock
from riverrun.runtime.service import Service, unexpected
from riverrun.verbs.notify import notify_inserted

logger = logging.getLogger(__name__)

DEBOUNCE_S = 0.01
"""Least seconds between two announcements of one queue."""

HEAD_START_S = 0.001
"""Seconds by which a producer of this process, woken already, is ahead of the announcement."""

WATCH_S = 0.000_5
"""Seconds between two looks at a transaction that is about to have committed."""

COMMIT_MAX_S = 30.0
"""Longest that a commit is watched; polling covers what takes longer."""

EXIT_S = 1.0
"""Longest that the process's exit waits for the last announcement."""

_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction is open


@attrs.define
class _Committing:
    """A transaction whose commit has been sent, or is about to be."""

    driver: Any
    queues: set[str]
    began: float
    over: bool = False


class Announcer(Service):
    """Tells of inserted jobs after their transaction has committed."""

    def __init__(
        self,
        engine: Engine,
        *,
        schema: str | None,
        on_committed: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        super().__init__("announcer", daemon=True)
        self._engine = engine
        self._schema = schema
        self._on_committed = on_committed
        self._clock = clock
        self._watched: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._key = f"riverrun.announcer.{id(self)}"
        self._told: dict[str, float] = {}
        self._reset()

    def _reset(self) -> None:
        # Also after a fork: the child has none of the parent's threads, and locks as they were.
        self._pid = os.getpid()
        self._thread = None
        self._lock = threading.Lock()  # guards the next three, and the thread's start
        self._committing: list[_Committing] = []
        self._committed: set[str] = set()
        self._woken = False  # a producer of this process looks for what has committed
        self._work = threading.Event()
        self._quiet = threading.Event()  # set while nothing is left to tell
        self._quiet.set()
        self.stopping = threading.Event()

    def inserted(self, connection: Connection, queues: Iterable[str]) -> None:
        """Announce `queues` once the transaction now open on `connection` has committed."""
        engine = connection.engine
        if engine not in self._watched:
            self._watched.add(engine)
            event.listen(engine, "begin", self._on_end)
            event.listen(engine, "rollback", self._on_end)
            event.listen(engine, "commit", self._on_commit)
            event.listen(engine, "rollback_twophase", self._on_end)
            event.listen(engine, "commit_twophase", self._on_commit_twophase)
        connection.info.setdefault(self._key, set()).update(queues)

    def committed(self, queues: Iterable[str]) -> None:
        """Announce `queues`, whose transaction has committed."""
        names = set(queues)
        self._start_after_fork()
        woken = False
        for name in names:
            woken = self._on_committed(name) or woken
        with self._lock:
            self._woken |= woken
            self._committed |= names
            self._quiet.clear()
        self.start()
        self._work.set()

    def interrupt(self) -> None:
        """End the wait for work."""
        self._work.set()

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all is told; return whether it is."""
        return self._quiet.wait(timeout) if self._pid == os.getpid() else True

    def start(self) -> None:
        """Start the thread when there is something to tell for the first time."""
        with self._lock:
            if self._thread is not None:
                return
            try:
                super().start()
                atexit.register(self.flush, EXIT_S)
            except RuntimeError as error:
                # At the interpreter's exit, say; the host's commit must not fail by it.
                logger.warning("not announced, so that polling finds the jobs: %s", error)

    def run(self) -> None:
        """Watch commits and tell of them, until stopped and all is told."""
        while True:
            self._work.wait()
            self._work.clear()
            while not self._quiet.is_set():
                self.announce_once()
                with self._lock:
                    watching, telling = bool(self._committing), bool(self._committed)
                    if not watching and not telling:
                        self._quiet.set()
                        break
                if watching:
                    self.stopping.wait(WATCH_S)
                elif telling:
                    self.stopping.wait(DEBOUNCE_S)
            if self.stopping.is_set():
                return

    def announce_once(self) -> frozenset[str]:
        """Tell of the queues whose transactions have committed and whose turn it is."""
        now = self._clock.monotonic()
        with self._lock:
            still = []
            for each in self._committing:
                if each.over or _is_over(each.driver):
                    self._committed |= each.queues
                    for name in each.queues:
                        self._woken = self._on_committed(name) or self._woken
                elif now - each.began < COMMIT_MAX_S:
                    still.append(each)
            self._committing = still
            due = frozenset(
                name
                for name in self._committed
                if self.stopping.is_set() or now - self._told.get(name, -DEBOUNCE_S) >= DEBOUNCE_S
            )
            self._committed -= due
            woken, self._woken = self._woken, False
        if due:
            if woken:
                # The claim under way here needs the interpreter too, and is likely to get the job.
                self.stopping.wait(HEAD_START_S)
            try:
                notify_inserted(self._engine, sorted(due), schema=self._schema)
            except Exception as error:
                # Polling finds the jobs; to try again would only come later than that.
                logger.warning(
                    "not announced %s: %s",
                    sorted(due),
                    type(error).__name__,
                    exc_info=unexpected(error),
                )
            for name in due:
                self._told[name] = now
        return due

    def _on_commit(self, connection: Connection) -> None:
        # Called before the COMMIT is sent: told too early, a worker would look and see nothing.
        queues = connection.info.pop(self._key, None)
        if not queues:
            return
        self._start_after_fork()
        self.start()
        dbapi = connection.connection.dbapi_connection
        if not _call_after_commit(dbapi, lambda: self.committed(queues)):
            self._watch(connection, queues)

    def _on_commit_twophase(self, connection: Connection, *_: object) -> None:
        queues = connection.info.pop(self._key, None)
        if queues:
            self._start_after_fork()
            self.start()
            self._watch(connection, queues)

    def _watch(self, connection: Connection, queues: set[str]) -> None:
        driver = connection.connection.driver_connection
        with self._lock:
            self._committing.append(_Committing(driver, queues, self._clock.monotonic()))
            self._quiet.clear()
        self._work.set()

    def _on_end(self, connection: Connection, *_: object) -> None:
        connection.info.pop(self._key, None)
        if self._committing:
            # A transaction begins, so the one before it on this connection is over.
            driver = connection.connection.driver_connection
            with self._lock:
                for each in self._committing:
                    if each.driver is driver:
                        each.over = True

    def _start_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._reset()


def _call_after_commit(dbapi: Any, call: Callable[[], None]) -> bool:
    """Have `call` called when the next commit() of `dbapi` has returned; return whether it will.

    SQLAlchemy tells of a Connection's commit before it, of none after it.
    """
    own = vars(dbapi).get("commit") if hasattr(dbapi, "__dict__") else None
    commit = dbapi.commit

    def commit_and_call() -> None:
        if own is None:
            del dbapi.commit
        else:
            dbapi.commit = own
        commit()
        call()

    try:
        dbapi.commit = commit_and_call
    except AttributeError:
        return False  # of a class with slots, as asyncpg's adapter
    return True


def _is_over(driver: Any) -> bool:
    """Return whether the transaction whose commit was begun on `driver` is over."""
    pgconn = getattr(driver, "pgconn", None)
    if pgconn is not None:
        return int(pgconn.transaction_status) == _IDLE or pgconn.status != 0
    in_transaction = getattr(driver, "is_in_transaction", None)  # asyncpg
    return not in_transaction() if in_transaction is not None else True

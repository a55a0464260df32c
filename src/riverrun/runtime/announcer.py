"""Step 2 of 5, notify: the sending side, which notifies after the commit.

A transaction that notifies takes a lock on the whole server while it commits. So where many jobs
are inserted, the inserting transaction only keeps the names of its queues. Once it has committed, a
thread notifies on a connection of its own, once for all transactions that committed meanwhile.
`on_committed` wakes the producer of the queue in this process.
"""

import atexit
import math
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Container

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.runtime.outage import log_failure
from riverrun.verbs.notify import notify_inserted
from riverrun.verbs.queues import read_queues

logger = logger_of(__name__)

DEBOUNCE_S = 0.01
"""Minimum seconds between two announcements of one queue."""

HEAD_START_S = 0.001
"""Seconds that the announcement waits if a producer of this process was woken already."""

IDLE_S = 1.0
"""Seconds without anything to announce after which the thread ends. The next commit restarts it."""

COMMITS_MIN = 10
"""Commits per second up to which inserts notify by themselves, however long that takes."""

COMMITS_MAX = 100
"""Commits per second beyond which inserts do not notify by themselves, however quick that is. Many
processes may each be below it, and 32 connections that notify commit less than a quarter as often
as others."""

SHARE = 0.1
"""The largest part of the time in which this process's commits may keep others from notifying."""

MEASURED_S = 10.0
"""Seconds for which it is assumed that a notification takes as long as the last measured one."""

NAMES_MAX = 1_000
"""Maximum number of queues that are looked up.

Without a limit, invented names would cost unlimited memory and statements.
"""

EXIT_S = 1.0
"""Maximum seconds that the process's exit waits for the last announcement."""


class Announcer:
    """Announces inserted jobs after their transaction has committed.

    Its thread is not a Service. It exists only while there is something to announce, and it is a
    daemon, because a web process must be able to exit without stopping it. The thread holds no
    reference to the Announcer: when the Announcer is dropped, the thread ends.

    Args:
        engine: The client's database, in autocommit.
        schema: The schema of River's tables; None for the search path's.
        on_committed: Called in the committing thread with each queue's name. It returns whether
            this process works that queue.
        own_queues: Queues that the client is to work, here or in other processes. There is no
            warning about their names while no client has worked them yet.
        clock: The process's clock.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        schema: str | None,
        on_committed: Callable[[str], bool],
        own_queues: Container[str] = (),
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._schema = schema
        self._on_committed = on_committed
        self._own_queues = own_queues
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        # Also after a fork: the child has none of the parent's threads, but its locks as they were.
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards the next three, and the thread's start and end
        self._thread: threading.Thread | None = None
        self._committed: set[str] = set()
        self._woken = False  # a producer of this process was woken for the committed jobs
        self._announced_at: dict[str, float] = {}  # the thread's own, as is the next
        self._looked_up: set[str] = set()  # queues whose rows were looked up
        # when the last transactions committed
        self._commits_at: deque[float] = deque(maxlen=COMMITS_MAX)
        # Commits in a second up to which inserts notify, and until when: the thread measures it.
        self._limit, self._limit_until = COMMITS_MIN, -math.inf
        # Not an Event: a SimpleQueue can be used anywhere, even in the garbage collector. Looked up
        # here: gevent may have replaced the class in a web server's child, after the fork.
        self._work: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._quiet = threading.Event()  # set while nothing is left to announce
        self._quiet.set()
        self._stopping = threading.Event()

    def committed(self, queue: str) -> None:
        """Announce `queue`: a transaction that inserted jobs into it has committed."""
        woken = self.notified(queue)
        with self._lock:
            self._woken |= woken
            self._committed.add(queue)
            if self._quiet.is_set():
                self._quiet.clear()
                _busy.add(self)
                self._work.put(None)
            if self._thread is None:
                self._start()

    def notified(self, queue: str) -> bool:
        """Wake this process's producer of `queue`: a transaction that notified has committed.

        Returns:
            Whether this process works the queue.
        """
        self._reset_after_fork()
        self._commits_at.append(self._clock.monotonic())
        return self._on_committed(queue)

    def leaves_to_insert(self, queue: str) -> bool:
        """Return whether an INSERT into `queue` is to notify by itself: if there are few commits.

        It does not until the thread has checked whether any client works the queue.
        """
        if queue not in self._own_queues and queue not in self._looked_up:
            return False
        now = self._clock.monotonic()
        limit = self._limit if now < self._limit_until else COMMITS_MIN
        commits_at = self._commits_at
        return len(commits_at) < limit or now - commits_at[-limit] > 1.0

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all is announced; return whether it is."""
        self._reset_after_fork()
        return self._quiet.wait(timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """Announce what is left and stop the thread; return whether it has stopped.

        Later commits are announced as before.

        Args:
            timeout: Seconds to wait at most. Default: None, which waits until it has stopped.
        """
        self._reset_after_fork()
        thread = self._thread
        if thread is None:
            return True
        self._stopping.set()
        self._work.put(None)
        thread.join(timeout)
        return not thread.is_alive()

    def announce_once(self) -> frozenset[str]:
        """Announce the queues whose transactions have committed and whose turn it is."""
        now = self._clock.monotonic()
        recent = {name: at for name, at in self._announced_at.items() if now - at < DEBOUNCE_S}
        with self._lock:
            due = frozenset(
                name for name in self._committed if self._stopping.is_set() or name not in recent
            )
            self._committed -= due
            woken, self._woken = self._woken, False
        if due:
            if woken:
                # The claim under way here needs the interpreter, too, and probably gets the job.
                self._stopping.wait(HEAD_START_S)
            try:
                began = self._clock.monotonic()
                notify_inserted(self._engine, sorted(due), schema=self._schema)
                self._measured(began, self._clock.monotonic())
            except Exception as error:
                # Polling finds the jobs. A second try would only come later than that.
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not notify clients of new jobs in queues %s; polling will find the jobs",
                    sorted(due),
                )
            self._warn_of_unknown(due - self._looked_up)
        self._announced_at = {**recent, **dict.fromkeys(due, now)}
        return due

    def _measured(self, began: float, ended: float) -> None:
        """Use the time of an announcement as the time for which one commit keeps others waiting."""
        at_most = SHARE / max(ended - began, SHARE / COMMITS_MAX)
        self._limit, self._limit_until = max(COMMITS_MIN, int(at_most)), ended + MEASURED_S

    def _warn_of_unknown(self, names: frozenset[str]) -> None:
        """Warn of queues that no client has worked so far, because a name may be wrong."""
        names = frozenset(name for name in names if name not in self._own_queues)
        if not names or len(self._looked_up) > NAMES_MAX:
            return
        self._looked_up |= names
        try:
            rows = read_queues(self._engine, sorted(names), schema=self._schema)
        except Exception as error:  # such as for a role that may only insert
            logger.debug(
                "could not check whether any client works queues %s: %s",
                sorted(names),
                reason(error),
            )
            return
        for name in sorted(names - {row.name for row in rows}):
            message = "jobs wait in queue %r, which no client has worked so far; is its name right?"
            logger.warning(message, name)

    def _start(self) -> None:
        self._stopping.clear()
        _running.add(self)
        work = self._work
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(self, lambda _: work.put(None)), work),
            name="riverrun.announcer",
            daemon=True,
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            # Such as at the interpreter's exit. The host's commit must not fail because of it.
            logger.warning(
                "could not start the thread that notifies clients of new jobs; polling will find "
                "the jobs: %s",
                error,
            )
            self._thread = None
            self._committed.clear()
            self._settle()

    def _announce_all(self) -> None:
        """Announce until nothing is left."""
        while True:
            self.announce_once()
            with self._lock:
                if not self._committed:
                    self._settle()
                    return
            self._stopping.wait(DEBOUNCE_S)

    def _settle(self) -> None:
        self._quiet.set()
        _busy.discard(self)

    def _has_ended(self) -> bool:
        """Return whether the thread may end, as nothing is left to announce."""
        with self._lock:
            if self._committed:
                return False
            self._thread = None
            return True

    def _reset_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._reset()


_busy: set[Announcer] = set()
"""The announcers that have something to announce, held so that none is dropped before."""


_running: weakref.WeakSet[Announcer] = weakref.WeakSet()
"""The announcers that have had a thread."""


def _run(reference: "weakref.ref[Announcer]", work: "queue.SimpleQueue[None]") -> None:
    while True:
        idle = False
        try:
            work.get(timeout=IDLE_S)
        except queue.Empty:
            idle = True
        announcer = reference()
        if announcer is None:
            return
        try:
            announcer._announce_all()
        except Exception as error:
            # Code of the host failed, such as its clock. Polling finds the jobs.
            log_error(
                logger, error, "could not notify clients of new jobs; polling will find the jobs"
            )
        if (idle or announcer._stopping.is_set()) and announcer._has_ended():
            return
        # The Announcer is not held while there is nothing to do.
        del announcer


def _stop_all() -> None:
    """Announce what committed before the exit, and end all threads, waiting for EXIT_S at most.

    Python aborts the process if a sub-interpreter, such as mod_wsgi's, ends before its threads.
    """
    clock = Clock()
    end = clock.monotonic() + EXIT_S
    for announcer in list(_running):
        announcer.stop(max(0.0, end - clock.monotonic()))


atexit.register(_stop_all)

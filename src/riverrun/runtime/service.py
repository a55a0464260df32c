"""Service: a named thread that can be started, stopped and joined."""

import threading
import time
from collections.abc import Callable

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from riverrun.errors import RiverrunError
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.logs.traces import outline

logger = logger_of(__name__)

CALM_S = 10.0
"""Seconds that a restarted service must run before it counts as healthy."""

LAST_TURNS = 3
"""How often a service that fails while it stops is restarted, because its last turn may matter."""


class Service:
    """Work that goes on in a thread of its own until it is stopped.

    If it fails before that, it is restarted: by its own thread as long as that lives, else by
    `StuckJobs`, which calls `revive()`. `start()` and `stop()` may be called twice, and `stop()`
    before `start()`.
    """

    def __init__(self, name: str, *, daemon: bool = False) -> None:
        self.name = f"riverrun.{name}"
        self.stopping = threading.Event()
        self._daemon = daemon
        self._threading = threading.Lock()  # guards _thread while it is replaced
        self._thread: threading.Thread | None = None
        self._beginning = False  # the thread is about to live
        self._failing_since: float | None = None
        self._failed_at = 0.0

    def start(self) -> None:
        """Start the thread, unless it was started.

        Raises:
            RuntimeError: If the process may have no more threads.
        """
        with self._threading:
            if self._thread is None:
                self.stopping.clear()
                self._failing_since = None
                self._begin()

    def revive(self) -> bool:
        """Start the thread again if it has died before it was stopped; return whether it lives."""
        with self._threading:
            thread = self._thread
            if thread is None or thread.is_alive() or self.stopping.is_set():
                return True
            if self._failing_since is None:
                logger.error("the thread %s has died; starting it again", self.name)
            self._fail()
            try:
                self._begin()
            except RuntimeError:
                # Keep the dead thread, so that the next look tries again.
                self._thread = thread
                return False
        logger.warning("started the thread %s again", self.name)
        return True

    def stop(self, timeout: float | None = None) -> bool:
        """Ask the thread to stop, and wait; return whether it has stopped.

        Args:
            timeout: Seconds to wait at most. Default: None, which waits until it has stopped.
        """
        with self._threading:
            self.stopping.set()
            thread = self._thread
        self.interrupt()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                return False
        self._thread = None
        return True

    @property
    def current(self) -> bool:
        """Whether the caller is the service's own thread."""
        return self._thread is threading.current_thread()

    @property
    def thread_id(self) -> int | None:
        """The identity of the thread; None if it was not started."""
        thread = self._thread
        return None if thread is None else thread.ident

    @property
    def alive(self) -> bool:
        """Whether the thread was started and still runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def failing_s(self) -> float:
        """For how many seconds the service has been dead, or has kept dying; 0 if it is healthy."""
        now, since = time.monotonic(), self._failing_since
        thread = self._thread
        # In this order: a new thread is there after the flag is set, and lives before it is reset.
        dead = thread is not None and not self._beginning and not thread.is_alive()
        if dead and not self.stopping.is_set():
            return max(0.001, now - (self._failed_at if since is None else since))
        if since is None or now - self._failed_at >= CALM_S:
            return 0.0
        return max(0.001, now - since)

    def interrupt(self) -> None:
        """End the thread's wait. Services that wait for more than `stopping` override this."""

    def run(self) -> None:
        """Do the service's work until `stopping` is set."""
        raise NotImplementedError

    def _begin(self) -> None:
        self._failed_at = time.monotonic()
        thread = threading.Thread(target=self._guarded, name=self.name, daemon=self._daemon)
        self._beginning = True
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            raise
        finally:
            self._beginning = False

    def _guarded(self) -> None:
        pause_s, last_turns = 0.1, 0
        while True:
            began = time.monotonic()
            error: BaseException | None = None
            try:
                self.run()
            except BaseException as raised:  # SystemExit, too, if a listener calls exit()
                error = raised
            if self.stopping.is_set():
                last_turns += 1
                if error is None or last_turns > LAST_TURNS:
                    return
            self._fail()
            if time.monotonic() - began >= CALM_S:
                pause_s = 0.1
            logger.error(
                "the thread %s ended unexpectedly; starting it again in %.1f s: %s",
                self.name,
                pause_s,
                "its run() returned" if error is None else f"{reason(error)}\n{outline(error)}",
            )
            if not self.stopping.is_set():
                self.stopping.wait(pause_s)
            if error is None and self.stopping.is_set():
                return
            pause_s = min(2 * pause_s, CALM_S / 2)

    def _fail(self) -> None:
        now = time.monotonic()
        if self._failing_since is None or now - self._failed_at >= CALM_S:
            self._failing_since = now
        self._failed_at = now


def unexpected(error: Exception) -> Exception | None:
    """Return `error` if its traceback is worth logging: that of a failing database is not."""
    expected = isinstance(error, SQLAlchemyError | RiverrunError | psycopg.Error | OSError)
    return None if expected else error


class Pause:
    """Growing pauses between tries: 0.1 s, then doubled up to `longest_s`, with jitter."""

    def __init__(self, random: Callable[[], float], longest_s: float = 10.0) -> None:
        self._random = random
        self._longest_s = longest_s
        self.reset()

    def reset(self) -> None:
        """Begin again with a short pause, after a success."""
        self._next_s = 0.1

    def next_s(self) -> float:
        """Return how many seconds to wait now."""
        pause_s = self._next_s * (0.75 + self._random() / 2)
        self._next_s = min(self._next_s * 2, self._longest_s)
        return pause_s

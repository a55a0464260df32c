"""Service: a named thread that starts, stops and is joined."""

import logging
import threading
from collections.abc import Callable

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from riverrun.errors import RiverrunError

logger = logging.getLogger(__name__)


class Service:
    """Something that goes on in a thread of its own until it is stopped.

    `start()` and `stop()` may be called twice, and `stop()` before `start()`.
    """

    def __init__(self, name: str, *, daemon: bool = False) -> None:
        self.name = f"riverrun.{name}"
        self.stopping = threading.Event()
        self._daemon = daemon
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it was started."""
        if self._thread is None:
            self.stopping.clear()
            self._thread = threading.Thread(
                target=self._guarded, name=self.name, daemon=self._daemon
            )
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                raise

    def stop(self, timeout: float | None = None) -> bool:
        """Ask the thread to end, and wait; return whether it has ended.

        Args:
            timeout: Seconds to wait; until it has ended if None.
        """
        self.stopping.set()
        self.interrupt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        self._thread = None
        return True

    @property
    def current(self) -> bool:
        """Whether the caller is the service's own thread."""
        return self._thread is threading.current_thread()

    @property
    def alive(self) -> bool:
        """Whether the thread was started and has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def interrupt(self) -> None:
        """End whatever the thread waits for; for those that wait for more than `stopping`."""

    def run(self) -> None:
        """Do the service's work until `stopping` is set."""
        raise NotImplementedError

    def _guarded(self) -> None:
        try:
            self.run()
        except Exception:
            logger.exception("ended %s by an error of its own", self.name)


def unexpected(error: Exception) -> Exception | None:
    """Return `error` if its traceback is worth a log: a database that fails has no use for one."""
    expected = isinstance(error, SQLAlchemyError | RiverrunError | psycopg.Error | OSError)
    return None if expected else error


class Pause:
    """Growing pauses between tries of what fails: 0.1 s, doubled up to `longest_s`, jittered."""

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

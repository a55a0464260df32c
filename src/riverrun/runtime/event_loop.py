"""LoopThread: the event loop that a client's coroutines share.

It calls `on_lost` when a loop and the coroutines in it are lost and another loop replaces it.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from riverrun.db.forks import close_in_child
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.runtime.service import Service

logger = logger_of(__name__)


LOG_S = 1.0
"""Minimum seconds between two log lines about code that stops the loop."""


class LoopThread(Service):
    """An event loop in a thread of its own, which all coroutines of a client share.

    Objects that async code keeps, such as a pool of connections, belong to one loop. So code that
    stops the loop, by `sys.exit()` in a task or by `loop.stop()`, does not end it: the loop runs
    on, and only the attempt that did so gets the exception. A loop that cannot run on is replaced.

    Args:
        on_lost: Called in the thread when a loop was replaced.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        super().__init__("loop")
        self._on_lost = on_lost
        self._lock = threading.Lock()  # guards all below
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Callable[[], None]] = []  # for the next loop
        self._started = False
        self._unstarted_since: float | None = None  # when there was no thread for it
        self._asked_at: float | None = (
            None  # when the loop was asked for a turn that it has not made
        )
        self._logged_at = -LOG_S

    def call(self, function: Callable[[], None]) -> None:
        """Call `function` in the loop, soon; if there is no loop yet, once it has started."""
        with self._lock:
            if self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(function)
                except RuntimeError:
                    pass  # a worker closed the loop: it is about to be replaced
                else:
                    return
            self._waiting.append(function)
            if self._started:
                return
            self._started = True
        try:
            self.start()
        except RuntimeError as error:
            with self._lock:
                self._started = False
                if self._unstarted_since is None:
                    self._unstarted_since = time.monotonic()
            logger.warning("could not start the thread of the event loop; trying again: %s", error)

    def run_soon(self, function: Callable[[], Coroutine[Any, Any, object]], timeout: float) -> None:
        """Await `function()` in the loop, if there is one; wait `timeout` seconds at most.

        If it raises an error or takes longer, that is logged.
        """
        with self._lock:
            loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(function(), loop).result(timeout)
        except Exception as error:
            log_error(logger, error, "a clean-up in the event loop failed")

    def silent_s(self) -> float | None:
        """Ask the loop for a turn; return for how many seconds the last request is unanswered.

        0 means that the loop has answered, and None that there is no loop. Only one thread calls
        this.
        """
        with self._lock:
            loop = self._loop
            if loop is None or loop.is_closed():
                self._asked_at = None
                return None
            if self._asked_at is not None:
                return time.monotonic() - self._asked_at
            try:
                loop.call_soon_threadsafe(self._turned)
            except RuntimeError:  # a worker closed the loop: it is about to be replaced
                return None
            self._asked_at = time.monotonic()
        return 0.0

    def _turned(self) -> None:
        with self._lock:
            self._asked_at = None

    def revive(self) -> bool:
        """Start the thread again if it has died or could not be started; return whether it runs."""
        with self._lock:
            wanted = bool(self._waiting) and not self._started and not self.stopping.is_set()
        if not wanted:
            return super().revive()
        try:
            self.start()
        except RuntimeError:
            return False
        with self._lock:
            self._started, self._unstarted_since = True, None
        return True

    @property
    def failing_s(self) -> float:
        """As a Service's. The loop also counts as failing while its thread cannot be started."""
        with self._lock:
            since = None if self._started else self._unstarted_since
        return super().failing_s if since is None else max(0.001, time.monotonic() - since)

    def run(self) -> None:
        """Run a loop until stopped, replacing it if it is lost; then cancel what is left."""
        while True:
            runner = asyncio.Runner()
            try:
                loop = runner.get_loop()
                # The sockets that wake the loop: asyncio has no public name for them.
                own = (getattr(loop, name, None) for name in ("_ssock", "_csock"))
                close_in_child(*filter(None, own))
                with self._lock:
                    self._loop, self._asked_at = loop, None
                    waiting, self._waiting = self._waiting, []
                    for function in waiting:
                        loop.call_soon(function)
                sound = self._run_on(loop)
                with self._lock:
                    self._loop = None
                if sound:
                    return
                self._on_lost()
            finally:
                with self._lock:
                    self._loop = None
                self._close(runner)

    def stop(self, timeout: float | None = None) -> bool:
        """Stop the thread, as `Service.stop`. It can be started again."""
        stopped = super().stop(timeout)
        with self._lock:
            self._started = False
        return stopped

    def interrupt(self) -> None:
        """End the loop."""
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._loop.stop)

    def _run_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Run `loop` until stopped, again if other code stops it; return whether it was sound."""
        while True:
            reason = "loop.stop()"
            try:
                if not self.stopping.is_set():
                    loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                # asyncio lets these out of a task. All other callbacks are still scheduled.
                reason = type(error).__name__
            except BaseException as error:
                log_error(logger, error, "the event loop has failed; a new one takes over")
                return False
            if self.stopping.is_set():
                return True
            now = time.monotonic()
            if now - self._logged_at >= LOG_S:
                self._logged_at = now
                logger.error("a worker stopped the event loop with %s; the loop goes on", reason)

    def _close(self, runner: asyncio.Runner) -> None:
        try:
            runner.close()
        except BaseException as error:
            # A task that is left in it may stop it once more, or it is closed already.
            log_error(logger, error, "the event loop did not close as it should")

"""StatementCanceller: ends the client's own statements that have been waiting for too long."""

import math
import os
import socket
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Any, cast

import psycopg

from riverrun.clock import Clock
from riverrun.db.statement_timeout import Waiting, waiting
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.runtime.service import Service

logger = logger_of(__name__)


INTERVAL_S = 0.5


GRACE_S = 2.0
"""Seconds that the server has to cancel a statement, before its connection is shut down."""


class StatementCanceller(Service):
    """Asks the server to cancel late statements, and shuts the connection down if it does not.

    The server is asked first: without that, a statement that waits for a lock would wait on there
    after its client is gone, and so would each further try. The statement fails then, and is tried
    again like any other.

    Args:
        clock: The process's clock.
        thread: The identity of the only thread whose statements are checked. Default: all threads.
        least_s: Seconds that each statement may take, even if its own limit is shorter.

    Attributes:
        cancelled: Whether it has asked the server to cancel any statement.
    """

    def __init__(self, *, clock: Clock, thread: int | None = None, least_s: float = 0.0) -> None:
        super().__init__("statement_canceller")
        self._clock = clock
        self._only = thread
        self._least_s = least_s
        self.cancelled = False

    def run(self) -> None:
        """Look until stopped."""
        while not self.stopping.wait(INTERVAL_S):
            try:
                self.run_once()
            except Exception as error:
                log_error(logger, error, "could not check for late statements")

    def cancel(self, services: Collection[Service]) -> None:
        """Treat the statements that these services wait for as late."""
        threads = {service.thread_id for service in services}
        for wait in list(waiting):
            if wait.thread in threads and wait.asked is None:
                wait.until = -math.inf

    def run_once(self) -> None:
        """Check all waiting statements once."""
        takes_requests = True
        for wait in list(waiting):
            if self._only not in (None, wait.thread):
                continue
            now = self._clock.monotonic()
            if wait.until is None:
                wait.until = now + max(wait.limit_s, self._least_s)
            elif now >= wait.until:
                takes_requests = self._give_up(wait, asks=takes_requests)

    def _give_up(self, late: Waiting, *, asks: bool) -> bool:
        """End a statement.

        Args:
            late: The wait for its answer.
            asks: Whether to ask the server first. If it took no request just now, it takes no
                other.

        Returns:
            Whether the server takes requests, as far as is known.
        """
        driver, asked = _waits_on(late), False
        if driver is None or late not in waiting:
            return asks
        if driver is not late.asked:
            if late.until == -math.inf:
                logger.info("cancelling a statement that would hold up the stop of the client")
            else:
                logger.warning(
                    "the database did not answer a statement within %.1f s; asking it to cancel "
                    "the statement",
                    late.limit_s,
                )
            late.asked = driver
            self.cancelled = True
            # If the answer arrives now, this may cancel the connection's next statement instead.
            asked = asks = asks and _ask_to_cancel(driver)
        if not asked and late in waiting and _waits_on(late) is driver:
            logger.warning(
                "closed a connection, because the database answered neither a statement nor the "
                "request to cancel it"
            )
            _hang_up(driver)
        # Also after shutting down: the pool may go on with another connection for the statement.
        late.until = self._clock.monotonic() + GRACE_S
        return asks


def _ask_to_cancel(driver: psycopg.Connection[Any]) -> bool:
    """Ask the server to cancel a statement; return whether it has taken the request."""
    taken = threading.Event()

    def ask() -> None:
        with suppress(psycopg.Error, OSError):
            driver.cancel_safe(timeout=GRACE_S)
            taken.set()

    # In a thread of its own: with a libpq older than 17 it has no time limit, and may never return.
    asking = threading.Thread(target=ask, name="riverrun.cancel", daemon=True)
    try:
        asking.start()
    except RuntimeError:  # the process may have no more threads
        return False
    asking.join(GRACE_S)
    return taken.is_set()


def _waits_on(wait: Waiting) -> psycopg.Connection[Any] | None:
    """Return the connection whose answer a thread waits for; None if it waits for none.

    It is found in the thread's stack: a pool that tests a connection waits before it has handed
    the connection out.
    """
    frame: FrameType | None = sys._current_frames().get(wait.thread)
    while frame is not None:
        for value in frame.f_locals.values():
            # Not isinstance(): that asks a proxy for its target, which it may not have here.
            if issubclass(type(value), psycopg.Connection) and _is_busy(value):
                return cast("psycopg.Connection[Any]", value)
        frame = frame.f_back
    return None


def _is_busy(driver: psycopg.Connection[Any]) -> bool:
    return driver.info.transaction_status is psycopg.pq.TransactionStatus.ACTIVE


def _hang_up(driver: psycopg.Connection[Any]) -> None:
    # Shut down, not closed: the thread that waits for it gets an end of file, and closes it.
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(driver.fileno())) as end:
        # If the connection is still open, the duplicated file is its socket, and not a later file.
        if not driver.closed:
            end.shutdown(socket.SHUT_RDWR)

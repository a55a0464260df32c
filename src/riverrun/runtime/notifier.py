"""Step 2 of 5, notify: the receiving side, which listens in each client that works.

It calls `on_notification` with each notification, and `on_listening` whenever it begins to listen.
"""

import contextlib
import logging
import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGconn
from psycopg.pq.misc import PGnotify
from sqlalchemy import Engine

from riverrun.db.direct import fetch
from riverrun.db.driver import OwnCursor
from riverrun.db.forks import close_in_child
from riverrun.db.statement_timeout import Waiting
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.queries import notify as queries
from riverrun.runtime.outage import log_failure, log_success
from riverrun.runtime.service import Pause, Service
from riverrun.wire.topics import Topic, parse

logger = logger_of(__name__)

PING = "SELECT 1"

PING_S = 5.0
"""Seconds of silence after which the connection is checked. Source: River 0.51."""

COMPLAIN_S = 10.0
"""Minimum seconds between two log lines about odd notifications. Any role may send many of them."""

Listener = Callable[[Topic, Mapping[str, Any]], None]


class Notifier(Service):
    """Listens for the whole client on one connection, and reconnects when it is cut.

    Notifications that were sent meanwhile are lost. So `on_listening` is called whenever it listens
    again, and polling covers the rest.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        schema: str | None,
        on_notification: Listener,
        on_listening: Callable[[], None],
        rng: random.Random,
    ) -> None:
        super().__init__("notifier")
        self._engine = engine
        self._schema = schema
        self._on_notification = on_notification
        self._on_listening = on_listening
        self._pause = Pause(rng.random)
        self._waker: socket.socket | None = None
        self._complained_at = -COMPLAIN_S
        self._suppressed = 0

    def interrupt(self) -> None:
        """End the wait for notifications."""
        waker = self._waker
        if waker is not None:
            with contextlib.suppress(OSError):  # the thread has stopped and closed its end
                waker.send(b"\0")

    def run(self) -> None:
        """Listen until stopped, on one connection after another."""
        waker, wakes = socket.socketpair()
        close_in_child(waker, wakes)
        with waker, wakes:
            # Before the first look at `stopping`: a stop that sets it later can interrupt the wait.
            self._waker = waker
            self._listen_on(wakes)
            self._waker = None

    def _listen_on(self, wakes: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                self._listen(wakes)
            except Exception as error:
                pause_s = self._pause.next_s()
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not listen for notifications; trying again in %.1f s",
                    pause_s,
                )
                self.stopping.wait(pause_s)

    def _listen(self, wakes: socket.socket) -> None:
        with Waiting(self._engine):
            pooled = self._engine.raw_connection()
        driver = pooled.driver_connection
        assert isinstance(driver, psycopg.Connection)  # noqa: S101  the client has checked it
        # Taken out of the pool: a connection that listens must not be handed to others. Nor does
        # the pool close it: it would log a lost connection with a traceback.
        pooled.detach()
        with contextlib.ExitStack() as stack:
            stack.callback(_close, driver)
            # A listener of the application's, such as one that sets the search path, may have begun
            # a transaction. What it has set stays.
            driver.commit()
            driver.autocommit = True
            # Those that arrive while psycopg executes a statement; it would drop them.
            meanwhile: deque[PGnotify] = deque()
            driver.pgconn.notify_handler = meanwhile.append
            with Waiting(self._engine):
                channels = self._channels(driver)
                for channel in channels:
                    listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
                    OwnCursor(driver).execute(listen)
            encoding = driver.info.encoding
            logger.debug("listening to %s", ", ".join(channels))
            self._pause.reset()
            log_success(self._engine)
            self._on_listening()
            # Not select.select(): it fails in a process with more than 1,024 files open.
            with selectors.DefaultSelector() as selector:
                selector.register(driver.fileno(), selectors.EVENT_READ)
                selector.register(wakes, selectors.EVENT_READ)
                while not self.stopping.is_set():
                    if not selector.select(PING_S):
                        with Waiting(self._engine):
                            OwnCursor(driver).execute(PING)
                    # Not driver.notifies(): it takes longer than the server takes to notify.
                    driver.pgconn.consume_input()
                    while (notification := _next(meanwhile, driver.pgconn)) is not None:
                        channel = notification.relname.decode(encoding, "replace")
                        self._handle(
                            channels, channel, notification.extra.decode(encoding, "replace")
                        )

    def _channels(self, driver: psycopg.Connection[Any]) -> dict[str, Topic]:
        params: dict[str, Any] = {"topics": [topic.value for topic in Topic]}
        if self._schema is not None:
            params["schema"] = self._schema
        statement = queries.channels(named=self._schema is not None)
        rows = fetch(driver, self._engine, statement, params)
        return {channel: Topic(topic) for channel, topic in rows}

    def _handle(self, channels: Mapping[str, Topic], channel: str, text: str) -> None:
        topic, payload = channels.get(channel), parse(text)
        if topic is None or payload is None:
            self._complain(
                "ignored a notification on channel %s that is not a JSON object", channel
            )
            return
        try:
            self._on_notification(topic, payload)
        except Exception as error:
            self._complain("could not handle a notification on channel %s", channel, error)

    def _complain(self, message: str, channel: str, error: Exception | None = None) -> None:
        """Log what is odd about a notification; of many in a short time, only the first."""
        now = time.monotonic()
        if now - self._complained_at < COMPLAIN_S:
            self._suppressed += 1
            return
        suppressed, self._complained_at, self._suppressed = self._suppressed, now, 0
        more = f"{suppressed} such messages before it were not logged"
        if error is None:
            logger.warning(f"{message}; %s", channel, more)  # noqa: G004
        else:
            log_error(logger, error, f"{message}; %s", channel, more, level=logging.WARNING)


def _close(driver: psycopg.Connection[Any]) -> None:
    """Close a connection that has listened, for good.

    The `close()` of one that came from a psycopg_pool, as by `creator=pool.getconn`, returns it to
    that pool. The application would get it in autocommit.
    """
    pool = getattr(driver, "_pool", None)
    if pool is None:
        driver.close()
    else:
        driver.pgconn.finish()
        pool.putconn(driver)  # and the pool replaces it


def _next(meanwhile: deque[PGnotify], pgconn: PGconn) -> PGnotify | None:
    return meanwhile.popleft() if meanwhile else pgconn.notifies()

"""Elect one leader among all clients, including River's, for a term."""

import math
import random
import threading
from collections.abc import Mapping
from typing import Any

import attrs
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.maintenance.leadership import Leadership
from riverrun.maintenance.maintainer import Maintainer
from riverrun.runtime.heartbeat import Heartbeat
from riverrun.runtime.outage import log_failure
from riverrun.runtime.service import Pause, Service
from riverrun.verbs.elect import elect, reelect, resign

logger = logger_of(__name__)

# Source of the intervals: River 0.51, internal/leadership.
INTERVAL_S = 5.0
TTL_S = INTERVAL_S + 10.0
STAND_S = 0.05
"""Maximum seconds, chosen at random, from a notified resignation until this client stands for
election. So the followers do not all stand at once."""

RESIGN_S = 10.0
"""Seconds after a request to resign in which a leader does not obey another request.

A request is just a notification, which any role may send. It may move the leadership once, but not
keep it moving.
"""

EARLY_S = 1.0
"""Minimum seconds between two notified resignations that make this client stand early."""

TRUST_S = TTL_S - 1.0
"""Seconds for which a leader may trust its term, from the start of the last successful attempt."""


@attrs.frozen
class Turn:
    """The result of one attempt at election.

    Attributes:
        leads: Whether this client leads after it.
    """

    leads: bool


class Elector(Service):
    """Stands for election every few seconds, and for re-election while it leads."""

    def __init__(
        self,
        engine: Engine,
        *,
        client_id: str,
        schema: str | None,
        leadership: Leadership,
        maintainer: Maintainer,
        heartbeat: Heartbeat,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("elector")
        self._engine = engine
        self._client_id = client_id
        self._schema = schema
        self._leadership = leadership
        self._maintainer = maintainer
        self._heartbeat = heartbeat
        self._clock = clock
        self._rng = rng
        self._pause = Pause(rng.random, longest_s=INTERVAL_S)
        self._woken = threading.Event()  # set to interrupt the wait
        self._lock = threading.Lock()  # guards the next two
        self._obeyed_at = -math.inf  # when a leader last obeyed a request
        self._resign_at = math.inf
        self._maintains = False  # all of the leader's services were started
        self._stood_at = -math.inf  # when a notified resignation last interrupted the wait

    @property
    def leads(self) -> bool:
        """Whether this client leads and may still trust its term."""
        return self._leadership.leads()

    def notified(self, payload: Mapping[str, Any]) -> None:
        """Handle a notification: another client has resigned, or the leader is asked to resign."""
        action, leader_id = payload.get("action"), payload.get("leader_id")
        now = self._clock.monotonic()
        if action == "resigned" and leader_id != self._client_id and self._leadership.term is None:
            if now - self._stood_at >= EARLY_S:
                self._stood_at = now
                self._woken.set()
        elif action == "request_resign":
            with self._lock:
                # All clients get the same requests, and expect the leader to obey the first one.
                if now - self._obeyed_at >= RESIGN_S:
                    self._obeyed_at = now
                if self._leadership.term is not None:
                    due = now if self._obeyed_at == now else self._obeyed_at + RESIGN_S
                    self._resign_at = min(self._resign_at, due)
            if self._leadership.term is not None:
                self._woken.set()

    def interrupt(self) -> None:
        """Interrupt the wait."""
        self._woken.set()

    def run(self) -> None:
        """Stand for election until stopped, or the client has lost its name; resign at the end."""
        wait_s = 0.0
        while not self.stopping.is_set():
            if self._heartbeat.name_taken:
                self.stopping.set()
                break
            now = self._clock.monotonic()
            end = now + wait_s
            wait_s = max(0.0, min(end, self._resign_at) - now)
            if self._woken.wait(wait_s) and self._leadership.term is None:
                self.stopping.wait(STAND_S * self._rng.random())
            self._woken.clear()
            if self.stopping.is_set():
                break
            now = self._clock.monotonic()
            if self._leadership.term is not None and now >= self._resign_at:
                self._resign()
                with self._lock:
                    self._obeyed_at, self._resign_at = now, math.inf
                # Let the others stand first; this client stands again if none of them does.
                wait_s = INTERVAL_S + self._rng.random()
                continue
            if self._leadership.term is not None and now < end:
                # A request to resign later is no reason to stand for re-election now.
                wait_s = end - now
                continue
            wait_s = INTERVAL_S + (0.0 if self._leadership.term else self._rng.random())
            try:
                self.run_once()
                self._pause.reset()
            except Exception as error:
                log_failure(
                    logger, self._engine, error, "could not take part in the election of a leader"
                )
                left_s = self._leadership.trusted_until - self._clock.monotonic()
                if self._leadership.term is not None and left_s <= 0:
                    self._lose()
                elif self._leadership.term is not None:
                    wait_s = min(self._pause.next_s(), left_s)
        self._resign()

    def run_once(self) -> Turn:
        """Stand for election or re-election once, and return whether this client leads."""
        began = self._clock.monotonic()
        if self._leadership.term is None:
            self._leadership.term = elect(
                self._engine, self._client_id, ttl_s=TTL_S, schema=self._schema
            )
            if self._leadership.term is not None:
                self._leadership.trusted_until = began + TRUST_S
                logger.info("client %s is elected leader", self._client_id)
                self._maintain()
        elif began >= self._leadership.trusted_until:
            self._lose()
        elif reelect(self._engine, self._leadership.term, ttl_s=TTL_S, schema=self._schema):
            self._leadership.trusted_until = began + TRUST_S
            self._maintain()
        else:
            self._lose()
        return Turn(leads=self._leadership.term is not None)

    def _maintain(self) -> None:
        # Again at each re-election, until the process gets a thread for every service.
        if not self._maintains:
            self._maintainer.start()
            self._maintains = True

    def _lose(self) -> None:
        # Another client may lead now, so there is no term to resign from.
        self._leadership.term = None
        self._resign_at = math.inf
        logger.warning("client %s has lost the leadership", self._client_id)
        self._maintains = False
        self._maintainer.stop()

    def _resign(self) -> None:
        term, self._leadership.term = self._leadership.term, None
        if term is None:
            return
        self._maintains = False
        self._maintainer.stop()
        try:
            resign(self._engine, term, schema=self._schema)
            logger.info("client %s has resigned as leader", self._client_id)
        except Exception as error:
            logger.warning(
                "could not resign as leader; the term expires by itself: %s", reason(error)
            )

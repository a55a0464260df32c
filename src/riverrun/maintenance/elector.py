"""Elector: who leads, for which term. One leader among all clients, River's included."""

import logging
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.runtime.service import Pause, Service, unexpected
from riverrun.verbs.elect import Term, elect, reelect, resign

logger = logging.getLogger(__name__)

# Source of the intervals: River 0.51, internal/leadership.
INTERVAL_S = 5.0
TTL_S = INTERVAL_S + 10.0
HEARD_S = 0.05
"""Most seconds between hearing of a resignation and standing: not all followers at once."""

TRUST_S = TTL_S - 1.0
"""Seconds after the start of the last successful attempt for which a leader may trust its term."""


@attrs.frozen
class Turn:
    """What one turn of the elector came to.

    Attributes:
        leads: Whether this client leads after it.
    """

    leads: bool


class Elector(Service):
    """Stands for election every few seconds, and again while it leads."""

    def __init__(
        self,
        engine: Engine,
        *,
        client_id: str,
        schema: str | None,
        on_elected: Callable[[], None],
        on_lost: Callable[[], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("elector")
        self._engine = engine
        self._client_id = client_id
        self._schema = schema
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._clock = clock
        self._rng = rng
        self._pause = Pause(rng.random, longest_s=INTERVAL_S)
        self._term: Term | None = None
        self._trusted_until = 0.0
        self._heard = threading.Event()  # something was said that ends the wait
        self._asked_to_resign = False

    @property
    def leads(self) -> bool:
        """Whether this client leads, as far as it may trust that."""
        return self._term is not None and self._clock.monotonic() < self._trusted_until

    def hear(self, payload: Mapping[str, Any]) -> None:
        """Take a notification: another has resigned, or the leader is asked to."""
        action, leader_id = payload.get("action"), payload.get("leader_id")
        if action == "resigned" and leader_id != self._client_id and self._term is None:
            self._heard.set()
        elif action == "request_resign" and self._term is not None:
            self._asked_to_resign = True
            self._heard.set()

    def interrupt(self) -> None:
        """End the wait."""
        self._heard.set()

    def run(self) -> None:
        """Stand for election until stopped; resign at the end."""
        wait_s = 0.0
        while not self.stopping.is_set():
            if self._heard.wait(wait_s) and not self._asked_to_resign:
                self.stopping.wait(HEARD_S * self._rng.random())
            self._heard.clear()
            if self.stopping.is_set():
                break
            if self._asked_to_resign:
                self._asked_to_resign = False
                self._resign()
                # The others' turn: this one stands again when nobody else has.
                wait_s = INTERVAL_S + self._rng.random()
                continue
            wait_s = INTERVAL_S + (0.0 if self._term else self._rng.random())
            try:
                self.run_once()
                self._pause.reset()
            except Exception as error:
                logger.warning(
                    "no word from the election: %s",
                    type(error).__name__,
                    exc_info=unexpected(error),
                )
                left_s = self._trusted_until - self._clock.monotonic()
                if self._term is not None and left_s <= 0:
                    self._lose()
                elif self._term is not None:
                    wait_s = min(self._pause.next_s(), left_s)
        self._resign()

    def run_once(self) -> Turn:
        """Stand for election, or for another term; return whether this client leads."""
        began = self._clock.monotonic()
        if self._term is None:
            self._term = elect(self._engine, self._client_id, ttl_s=TTL_S, schema=self._schema)
            if self._term is not None:
                self._trusted_until = began + TRUST_S
                logger.info("elected: %s leads", self._client_id)
                self._on_elected()
        elif began >= self._trusted_until:
            self._lose()
        elif reelect(self._engine, self._term, ttl_s=TTL_S, schema=self._schema):
            self._trusted_until = began + TRUST_S
        else:
            self._lose()
        return Turn(leads=self._term is not None)

    def _lose(self) -> None:
        # Another may lead by now, so there is nothing to resign from.
        self._term = None
        logger.warning("lost the lead: %s", self._client_id)
        self._on_lost()

    def _resign(self) -> None:
        term, self._term = self._term, None
        if term is None:
            return
        self._on_lost()
        try:
            resign(self._engine, term, schema=self._schema)
            logger.info("resigned: %s no longer leads", self._client_id)
        except Exception as error:
            logger.warning("not resigned; the term ends by itself: %s", type(error).__name__)

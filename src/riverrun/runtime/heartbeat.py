"""Heartbeat: writes regularly that this client lives, so that a dead client's jobs are rescued."""

import os
import random
import socket

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.errors import ClientGivenUp
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.runtime.completer import Completer
from riverrun.runtime.health import Health
from riverrun.runtime.outage import log_failure, log_success
from riverrun.runtime.producers import Producers
from riverrun.runtime.service import Pause, Service
from riverrun.verbs.beat import beat, leave, touch

logger = logger_of(__name__)

INTERVAL_S = 5.0
"""Seconds between two heartbeats."""

DEAD_S = 20.0
"""Seconds without a heartbeat after which others may rescue a client's jobs."""

GIVEN_UP_S = 15.0
"""Seconds without a heartbeat after which a client cancels its jobs: before others rescue them."""

TOUCHES = 6
"""How often a claimed job's attempt time is renewed within the time after which River rescues."""


class Heartbeat(Service):
    """Writes that this client lives, and cancels its jobs if it could not for too long.

    Attributes:
        river_leads: Whether the leader at the last heartbeat was a client without heartbeats, such
            as River's.
        name_taken: Whether another client has taken this one's name, while this one was silent.
    """

    river_leads: bool

    def __init__(
        self,
        engine: Engine,
        *,
        client_id: str,
        instance: str | None = None,
        producers: Producers,
        completer: Completer,
        health: Health,
        schema: str | None,
        clock: Clock,
        rng: random.Random,
        rescue_after_s: float,
    ) -> None:
        super().__init__("heartbeat")
        self._engine = engine
        self._client_id = client_id
        self._instance = instance
        self.name_taken = False
        self._producers = producers
        self._completer = completer
        self._health = health
        self._schema = schema
        self._clock = clock
        self._rng = rng
        self._touch_s = rescue_after_s / TOUCHES
        self._interval_s = min(INTERVAL_S, self._touch_s)
        self._pause = Pause(rng.random, longest_s=self._interval_s)
        self._last = clock.monotonic()
        self._failed = False
        self._given_up = False
        self._touched: dict[tuple[int, int], float] = {}
        self._watched: Service | None = None

    def watch_over(self, service: Service) -> None:
        """Restart `service` if it dies: it is the one that restarts all others."""
        self._watched = service

    @property
    def healthy(self) -> bool:
        """Whether the last heartbeat succeeded, and was not late."""
        return not self._failed and self._clock.monotonic() - self._last < 2 * INTERVAL_S

    def run(self) -> None:
        """Beat until stopped."""
        wait_s = self._wait_s()
        while not self.stopping.wait(wait_s):
            if self._watched is not None:
                self._watched.revive()
            try:
                self.run_once()
                self._given_up = self._failed = False
                log_success(self._engine)
                self._pause.reset()
                wait_s = self._wait_s()
            except Exception as error:
                self._failed = True
                wait_s = self._pause.next_s()
                silent_s = self._clock.monotonic() - self._last
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "the heartbeat failed; the last one that succeeded was %.0f s ago",
                    silent_s,
                )

    def check_silence(self) -> None:
        """Cancel every attempt if no heartbeat has succeeded for 15 s: others may rescue the jobs.

        Another thread than the heartbeat's calls this: that one may wait for an answer for ever.
        """
        if self.name_taken:
            return  # its jobs were cancelled then
        if not self._given_up and self._clock.monotonic() - self._last >= GIVEN_UP_S:
            self._given_up = True
            logger.error(
                "cancelling all running jobs: no heartbeat has succeeded for %g s, and other "
                "clients may rescue them",
                GIVEN_UP_S,
            )
            self._give_up()

    def run_once(self) -> None:
        """Write a heartbeat, and renew the attempt time of jobs that were claimed long ago."""
        began = self._clock.monotonic()
        if began - self._last >= GIVEN_UP_S:
            self._give_up()
        leads = beat(
            self._engine,
            self._client_id,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            queues=self._producers.names,
            state=self._health.state(),
            instance=self._instance,
            schema=self._schema,
        )
        if leads is None:
            self._lose_name()
            return
        self.river_leads = leads
        self._last = began
        self._touch(began)

    def leave(self) -> None:
        """Sign off: record that this client is gone, unless it has left jobs running."""
        try:
            leave(self._engine, self._client_id, schema=self._schema)
        except Exception as error:
            logger.warning("could not record that this client has stopped: %s", reason(error))

    def _lose_name(self) -> None:
        # Nothing in a job's row would tell this client's jobs from the other's.
        if not self.name_taken:
            self.name_taken = True
            logger.error(
                "another client has taken the name %s, because this one had no heartbeat for too "
                "long; this one claims no more jobs, and must be started again",
                self._client_id,
            )
            self._producers.claim_no_more()
            self._give_up()

    def _give_up(self) -> None:
        self._producers.cancel_all(ClientGivenUp())

    def _unwritten(self) -> set[tuple[int, int]]:
        """Return the claimed jobs whose outcome is not written, as job id and attempt."""
        # In this order: a finished attempt is put to the completer before it leaves its slot.
        claimed = {(job.id, job.attempt) for job in self._producers.claimed()}
        return claimed | self._completer.held_attempts

    def _wait_s(self) -> float:
        return self._interval_s * (0.9 + 0.1 * self._rng.random())

    def _touch(self, now: float) -> None:
        self._touched = {claim: self._touched.get(claim, now) for claim in self._unwritten()}
        long = [claim for claim, since in self._touched.items() if now - since >= self._touch_s]
        if long:
            touch(self._engine, long, schema=self._schema)
            self._touched.update(dict.fromkeys(long, now))

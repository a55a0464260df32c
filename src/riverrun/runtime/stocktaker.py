"""Stocktaker: finds rows that run for this client without its knowledge, and gives them back."""

import random
import threading
from collections.abc import Sequence

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.db.statement_timeout import with_timeout
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.runtime.completer import Completer
from riverrun.runtime.outage import log_failure
from riverrun.runtime.producer import Producer
from riverrun.runtime.producers import Producers
from riverrun.runtime.service import Pause, Service
from riverrun.verbs.give_back import RunningRow, give_back_unchanged, read_running

logger = logger_of(__name__)

INTERVAL_S = 25.0
"""Seconds between two looks. A job lost without a trace takes two looks: less than a minute."""

SOON_S = 1.0
"""Seconds until a look that was asked for, such as by a claim that failed."""

ANSWER_S = 5.0
"""Maximum seconds to wait for the answer of a claim under way at a look, or for the completer."""

LOOK_S = 0.01


class Stocktaker(Service):
    """Compares the rows that run for this client with what it executes.

    No other client rescues the rows of a living client. A row may run without this client's
    knowledge if the answer to its claim was lost, if the row was changed by hand, or if the thread
    that executed it has died. A job whose outcome waits to be written is known.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        client_id: str,
        instance: str | None = None,
        producers: Producers,
        completer: Completer,
        schema: str | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("stocktaker")
        self._engine = engine
        self._client_id = client_id
        self._instance = instance
        self._producers = producers
        self._completer = completer
        self._schema = schema
        self._clock = clock
        self._rng = rng
        self._pause = Pause(rng.random)
        self._woken = threading.Event()
        self._wanted = False  # a look was asked for, and none was made since

    def wake(self) -> None:
        """Look soon: the database may have made a claim whose answer did not arrive."""
        self._wanted = True
        self._woken.set()

    def interrupt(self) -> None:
        """End the wait."""
        self._woken.set()

    def run(self) -> None:
        """Look until stopped."""
        wait_s = self._wait_s()
        while not self.stopping.is_set():
            if self._woken.wait(wait_s):
                self.stopping.wait(SOON_S)
                self._woken.clear()
            if self.stopping.is_set():
                return
            try:
                self.run_once()
                self._pause.reset()
                wait_s = self._wait_s()
            except Exception as error:
                wait_s = self._pause.next_s()
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not check for jobs that run in the database but not in this client; "
                    "trying again in %.1f s",
                    wait_s,
                )

    def run_once(self) -> int:
        """Give back running jobs that are not known here; return their number."""
        producers = self._producers.with_left
        for producer in producers:
            producer.drop_strays()
        self._wanted = False
        rows = read_running(
            self._engine,
            client_id=self._client_id,
            instance=self._instance,
            schema=self._schema,
        )
        # After reading the rows: a claim that is under way now may have made some of them.
        asking = {producer.queue: producer.asking for producer in producers}
        unknown = self._unknown(rows, producers)
        for producer in producers:
            if any(row.queue == producer.queue for row in unknown):
                unknown = self._answered(unknown, producer, asking[producer.queue])
        # Once more: the answers that arrived have made some known.
        unknown = self._unknown(unknown, producers)
        if not unknown:
            return 0
        given = give_back_unchanged(
            self._engine,
            unknown,
            client_id=self._client_id,
            schema=self._schema,
        )
        if given:
            logger.warning(
                "gave back %s jobs that ran in the database but not in this client: %s",
                len(given),
                sorted(given),
            )
        return len(given)

    def finish(self) -> None:
        """Look a last time if a look was asked for, once nothing is executed any more."""
        if self._wanted:
            self._engine = with_timeout(self._engine, ANSWER_S)
            try:
                self.run_once()
            except Exception as error:
                logger.warning(
                    "could not check, before the client stopped, for jobs that run in the database "
                    "but not in this client; they will be rescued: %s",
                    reason(error),
                )

    def _unknown(
        self, rows: Sequence[RunningRow], producers: Sequence[Producer]
    ) -> list[RunningRow]:
        # In this order: a finished attempt is put to the completer before the producer forgets it.
        known = {job.id for producer in producers for job in producer.claimed()}
        rows = [row for row in rows if row.id not in known]
        if not rows:
            return []
        held = self._completer.unwritten(ANSWER_S)
        return [] if held is None else [row for row in rows if row.id not in held]

    def _answered(
        self, rows: list[RunningRow], producer: Producer, number: int | None
    ) -> list[RunningRow]:
        """Wait for the answer of the claim `number`; if it is late, leave out its queue's rows."""
        end = self._clock.monotonic() + ANSWER_S
        while number is not None and producer.asking == number:
            if self._clock.monotonic() >= end or self.stopping.wait(LOOK_S):
                return [row for row in rows if row.queue != producer.queue]
        return rows

    def _wait_s(self) -> float:
        return INTERVAL_S * (0.9 + 0.1 * self._rng.random())

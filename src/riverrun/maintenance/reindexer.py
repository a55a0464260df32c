"""Reindex what bloats: the indexes of the job table, once a day."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import psycopg
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.policies.schedule import Schedule
from riverrun.runtime.service import Service, unexpected
from riverrun.verbs.reindex import reindex

logger = logging.getLogger(__name__)

_BROKEN_AGAIN = timedelta(days=1)


class Reindexer(Service):
    """Rebuilds the indexes one after another, at the times of its schedule."""

    def __init__(
        self,
        engine: Engine,
        *,
        names: Sequence[str],
        schedule: Schedule,
        timeout_s: float,
        schema: str | None,
        clock: Clock,
    ) -> None:
        super().__init__("reindexer")
        self._engine = engine
        self._names = names
        self._schedule = schedule
        self._timeout_s = timeout_s
        self._schema = schema
        self._clock = clock
        self._lock = threading.Lock()  # guards _cancel
        self._cancel: Callable[[], None] | None = None

    def interrupt(self) -> None:
        """Cancel the statement that runs; what it has built is removed."""
        with self._lock, suppress(psycopg.Error):
            if self._cancel is not None:
                self._cancel()

    def run(self) -> None:
        """Reindex whenever it is time until stopped."""
        while not self.stopping.is_set():
            now = self._clock.now()
            try:
                at = self._schedule(now)
            except Exception:
                logger.exception("no next time to reindex")
                at = now + _BROKEN_AGAIN
            if not self.stopping.wait(max(0.0, (at - now).total_seconds())):
                self.run_once()

    def run_once(self) -> list[str]:
        """Rebuild every index that is there; return which were."""
        done = []
        for name in self._names:
            if self.stopping.is_set():
                break
            try:
                if reindex(
                    self._engine,
                    name,
                    timeout_s=self._timeout_s,
                    schema=self._schema,
                    on_begin=self._began,
                ):
                    done.append(name)
                    logger.info("reindexed %s", name)
            except Exception as error:
                reason = type(error).__name__
                logger.warning("not reindexed: %s: %s", name, reason, exc_info=unexpected(error))
                # Whoever kept it waiting would keep the others waiting too: another day.
                break
            finally:
                self._began(None)
        return done

    def _began(self, cancel: Callable[[], None] | None) -> None:
        with self._lock:
            self._cancel = cancel

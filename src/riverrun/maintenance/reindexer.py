"""Rebuild the bloated indexes of the job table, by default once a day."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import psycopg
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.db.refusals import sqlstate
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_aware
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.policies.schedule import Schedule
from riverrun.runtime.outage import log_failure
from riverrun.runtime.service import Service
from riverrun.verbs.reindex import reindex

logger = logger_of(__name__)

_BROKEN_AGAIN = timedelta(days=1)
_INSUFFICIENT_PRIVILEGE = "42501"


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
        self._refused = False  # whether the role may not rebuild indexes; this is logged once

    def interrupt(self) -> None:
        """Cancel the running statement; the unfinished index is removed."""
        with self._lock, suppress(psycopg.Error):
            if self._cancel is not None:
                self._cancel()

    def run(self) -> None:
        """Rebuild the indexes at each time of the schedule, until stopped."""
        while not self.stopping.is_set():
            now = self._clock.now()
            wait_s = (self._next(now) - now).total_seconds()
            if not self.stopping.wait(min(wait_s, threading.TIMEOUT_MAX)):
                self.run_once()

    def run_once(self) -> list[str]:
        """Rebuild all indexes that exist; return the names of those that were rebuilt."""
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
                    logger.info("rebuilt the index %s", name)
            except Exception as error:
                self._log_refusal(name, error)
                # What blocked this index would block the others, too, so wait for the next time.
                break
            finally:
                self._began(None)
        return done

    def _next(self, now: datetime) -> datetime:
        try:
            return _checked(self._schedule(now), now)
        except BaseException as error:
            message = "the reindexer_schedule failed; the next rebuild is in a day"
            log_error(logger, error, message)
            return now + _BROKEN_AGAIN

    def _log_refusal(self, name: str, error: Exception) -> None:
        if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
            message = (
                "could not rebuild the index %s; trying again at the next time of the schedule"
            )
            log_failure(logger, self._engine, error, message, name)
        elif not self._refused:
            self._refused = True
            message = "indexes are not rebuilt, because this role does not own them: %s"
            logger.warning(message, reason(error))

    def _began(self, cancel: Callable[[], None] | None) -> None:
        with self._lock:
            self._cancel = cancel


def _checked(at: object, now: datetime) -> datetime:
    at = check_aware("reindexer_schedule", at)
    if at <= now:
        raise InvalidOption("reindexer_schedule", at, f"a time after {now.isoformat()}")
    return at

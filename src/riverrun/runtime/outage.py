"""Outage: whether the database can be reached, as one client sees it.

While it cannot be reached, all services of the client fail together. The log has one line when the
outage begins, with its cause, and one when it is over.
"""

import logging
import threading
import time
from collections.abc import Mapping

import psycopg
from sqlalchemy import Engine

from riverrun.db.refusals import Fault, fault_of
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.logs.traces import outline
from riverrun.runtime.service import unexpected

logger = logger_of(__name__)

OUTAGE = "riverrun_outage"
"""The execution option of an engine that holds its client's Outage."""


class Outage:
    """Whether a client's database can be reached, as found by all its services.

    Args:
        by: The option whose engine they use, for the log. Default: None, the client's own engine.
    """

    def __init__(self, by: str | None = None) -> None:
        self._by = "" if by is None else f" by {by}"
        self._lock = threading.Lock()  # guards _since
        self._since: float | None = None

    def begin(self, error: BaseException) -> None:
        """Log `error`, unless the outage is known."""
        with self._lock:
            known, self._since = self._since, self._since or time.monotonic()
        if known is None:
            logger.warning("the database cannot be reached%s: %s", self._by, reason(error))

    def end(self) -> None:
        """Log that the database can be reached again, if it could not."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            passed_s = time.monotonic() - since
            logger.info("the database can be reached%s again, after %.0f s", self._by, passed_s)


def log_failure(
    to: logging.Logger,
    engine: Engine,
    error: Exception,
    message: str,
    *args: object,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log what a service could not do, and why, as a warning; in an outage, only the first time.

    Args:
        to: The service's logger.
        engine: The engine that it used.
        error: The error that was raised.
        message: What it could not do, with placeholders for `args`.
        *args: The values for the placeholders of `message`.
        extra: As for `logging`.
    """
    outage: Outage | None = engine.get_execution_options().get(OUTAGE)
    level = logging.WARNING
    # A bare psycopg error comes from the connection that listens, which SQLAlchemy does not see.
    unreachable = isinstance(error, psycopg.OperationalError)
    if outage is not None and (unreachable or fault_of(error) is Fault.connection):
        outage.begin(error)
        level = logging.DEBUG
    text = reason(error)
    if unexpected(error):
        text = f"{text}\n{outline(error)}"
    to.log(level, f"{message}: %s", *args, text, extra=extra)


def log_success(engine: Engine) -> None:
    """Note that the database answered on `engine`."""
    outage: Outage | None = engine.get_execution_options().get(OUTAGE)
    if outage is not None:
        outage.end()

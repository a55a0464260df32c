"""Loggers whose filters and handlers may fail without harm to riverrun.

A filter of the application may raise, such as one that reads the current request where there is
none. If that error came out of a call of the logger, an attempt that has ended would be lost and
executed again, and threads of the client would die.
"""

import logging
from typing import Any

_reporter = logging.Handler()


def logger_of(name: str) -> logging.Logger:
    """Return the logger `name`; what its filters, handlers and record factory raise is reported.

    It is reported as the standard library reports errors of a handler: on stderr, unless
    `logging.raiseExceptions` is false.
    """
    logger = logging.getLogger(name)
    make, handle = logger.makeRecord, logger.handle

    def make_record(*args: Any, **rest: Any) -> logging.LogRecord:
        try:
            return make(*args, **rest)
        except Exception:
            record = _plain(*args, **rest)
            _reporter.handleError(record)
            return record

    def handle_record(record: logging.LogRecord) -> None:
        try:
            handle(record)
        except Exception:
            _reporter.handleError(record)

    # On the logger itself, and not in a subclass: the application may have made it already.
    logger.makeRecord = make_record  # type: ignore[method-assign]
    logger.handle = handle_record  # type: ignore[method-assign]
    return logger


def _plain(
    name: str,
    level: int,
    path: str,
    line: int,
    message: object,
    args: Any,
    exc_info: Any,
    function: str | None = None,
    extra: Any = None,
    stack: str | None = None,
) -> logging.LogRecord:
    """Return the record that the standard library makes, with `extra` where that takes no name."""
    record = logging.LogRecord(name, level, path, line, message, args, exc_info, function, stack)
    vars(record).update({**(extra or {}), **vars(record)})
    return record

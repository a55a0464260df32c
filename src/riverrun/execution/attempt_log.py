"""Logs attempts: one line each without the application's texts, or with the traceback.

An exception's text may hold args, which belong in the row and not in a log. So by default a line
names the exception's class and where it was raised. The logger `riverrun.tracebacks` enables texts
and tracebacks. It is off until its level is set, as `riverrun work --tracebacks` does.
"""

import logging
from datetime import UTC, datetime

from riverrun.errors import (
    AttemptLost,
    ClientStopping,
    JobCancel,
    JobCancelledRemotely,
    JobSnooze,
    NoConnection,
    ObjectBusy,
    UndecodableArgs,
    UnknownKind,
)
from riverrun.jobs.row import JobRow
from riverrun.logs.errors import tracebacks
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import printable, printable_lines
from riverrun.logs.traces import folded, place_of
from riverrun.outcome import attempt_error
from riverrun.verbs.claim import ClaimedJob

logger = logger_of("riverrun.attempt")


def log_completed(job: JobRow | ClaimedJob, run_s: float) -> None:
    """Log that a worker returned, at INFO.

    Args:
        job: The job.
        run_s: Seconds that its worker took.
    """
    if logger.isEnabledFor(logging.INFO):
        message = "completed job %s (%s) in %s"
        logger.info(message, job.id, printable(job.kind), _took(run_s), extra=_extra(job))


def log_failed(job: JobRow, error: BaseException, *, after_completion: bool) -> None:
    """Log the error that a worker raised, at a level that depends on the error.

    Args:
        job: The job.
        error: The error that its worker raised.
        after_completion: Whether the worker's own transaction had completed the job before.
    """
    kind, extra = printable(job.kind), _extra(job)
    match error:
        case JobSnooze():
            message = "snoozed job %s (%s) for %g s"
            logger.info(message, job.id, kind, error.delay_s, extra=extra)
            return
        case JobCancel():
            text = f": {printable(error)}" if tracebacks.isEnabledFor(logging.INFO) else ""
            message = "cancelled job %s (%s) as its worker requested%s"
            logger.info(message, job.id, kind, text, extra=extra)
            return
        case JobCancelledRemotely() | ClientStopping():
            logger.info("interrupted job %s (%s): %s", job.id, kind, error, extra=extra)
            return
        case ObjectBusy():
            logger.debug("deferred job %s (%s): its object is locked", job.id, kind, extra=extra)
            return
        case NoConnection():
            logger.warning("gave back job %s (%s): %s", job.id, kind, error, extra=extra)
            return
        case AttemptLost():
            message = "could not record the outcome of job %s (%s): %s"
            logger.warning(message, job.id, kind, error, extra=extra)
            return
    # Args that do not decode at the first attempt will not decode at the next one.
    final = isinstance(error, UndecodableArgs) or job.attempt >= job.max_attempts
    level = logging.ERROR if final or after_completion else logging.WARNING
    details = _details(error, with_texts=tracebacks.isEnabledFor(level))
    if after_completion:
        message = "the worker of job %s (%s) raised an error after completing the job: %s"
        logger.log(level, message, job.id, kind, details, extra=extra)
        return
    message = "failed attempt %s of %s at job %s (%s): %s"
    logger.log(level, message, job.attempt, job.max_attempts, job.id, kind, details, extra=extra)


def log_gone(job: JobRow, error: BaseException) -> None:
    """Log that a job is cancelled because an object that it refers to is gone."""
    message = "cancelled job %s (%s): an object of class %s that it refers to is gone"
    name = printable(str(error.args[0]))
    logger.info(message, job.id, printable(job.kind), name, extra=_extra(job))


def log_conflict(job: JobRow) -> None:
    """Log that an attempt begins again because its transaction conflicted with another."""
    message = "gave back job %s (%s): its transaction conflicted with another"
    logger.info(message, job.id, printable(job.kind), extra=_extra(job))


def _details(error: BaseException, *, with_texts: bool) -> str:
    place = place_of(error)
    line = f"{type(error).__name__} at {place}" if place else type(error).__name__
    if isinstance(error, UnknownKind):  # its text holds nothing but names
        return f"{line}: {printable(error)}"
    if not with_texts:
        return line
    entry = attempt_error(0, datetime.now(UTC), error)
    text = entry.error.partition("\n")[0]
    return printable_lines(f"{text}\n{folded(entry.trace)}".rstrip())


def _took(run_s: float) -> str:
    return f"{run_s * 1000:.0f} ms" if run_s < 1 else f"{run_s:.1f} s"


def _extra(job: JobRow | ClaimedJob) -> dict[str, object]:
    return {"job_id": job.id, "kind": job.kind, "queue": job.queue, "attempt": job.attempt}

"""Step 4 of 5, execute: what the end of an attempt changes in the job's row."""

import logging
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import attrs

from riverrun.errors import (
    ClientStopping,
    InvalidOption,
    JobCancel,
    JobCancelledRemotely,
    JobError,
    JobRescued,
    JobSnooze,
    NoConnection,
    ObjectBusy,
    ObjectGone,
    UndecodableArgs,
    UnknownKind,
)
from riverrun.jobs.json_values import (
    MAX_METADATA_BYTES,
    json_problem,
    json_size,
    json_text,
    metadata_text,
)
from riverrun.jobs.row import AttemptError, JobRow
from riverrun.jobs.states import JobState
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.logs.traces import trace_of
from riverrun.policies.backoff import Backoff, RiverBackoff
from riverrun.wire import go_json

logger = logger_of(__name__)


SCHEDULER_INTERVAL_S = 5.0
"""A job due within this many seconds does not wait for the scheduler: it is set to available at
once, and its `scheduled_at` keeps it from being claimed before it is due."""

CONFLICTS_KEY = "riverrun:conflicts"
"""The metadata key that counts how often a job's transactions met a conflict."""

CONFLICTS_MAX = 20
"""How many conflicts of one job are not counted as failures."""

CONFLICT_S = 0.05
"""Seconds after the first conflict until the job may be claimed again; doubled after each one."""

WAITS_KEY = "riverrun:waits_for"
"""The metadata key that names the object for which a job waits, to work on it alone."""

WAITS_COUNT_KEY = "riverrun:waits"
"""The metadata key that counts how often a job found that object locked."""

WAIT_S = 0.1
"""Seconds until a job that found its object locked is tried again; doubled each time."""

TRIES_PER_S = 20
"""How many of the jobs that wait for one object are tried in a second, so that a long line leaves
time for the jobs of others."""

MAX_ERROR_CHARS = 16_384
MAX_TRACE_CHARS = 65_536

OUTPUT_KEY = "output"
"""The metadata key of a job's output. Source: River 0.51."""

MAX_OUTPUT_BYTES = 32 * 1024 * 1024
"""Largest output kept with a job, in bytes. Source: River 0.51, recorded_output.go."""

MAX_ROW_BYTES = 192 * 1024 * 1024
"""Largest metadata of a row in bytes of JSON, with what an attempt adds. The limit of jsonb is
256 MB, and it stores short texts and numbers in more bytes than JSON."""

_WITHOUT_TRACE = (
    *(JobCancel, JobCancelledRemotely, JobError, JobRescued),
    *(ObjectGone, UndecodableArgs, UnknownKind),
)
"""Expected errors, recorded as their text alone: a type or a traceback would add nothing."""

_NUMBER = re.compile(r"-?[0-9]{1,19}")
_COUNT_MAX = 2**63 - 1


@attrs.define
class Outcome:
    """What to write for one attempt, if its job is still running at that attempt.

    One is made for every job. The class is not frozen, because that would more than double the time
    to make one; treat it as if it were. Passing the values by position halves that time again.

    Attributes:
        job_id: The job's id.
        attempt: The number of the attempt.
        state: The job's new state.
        metadata: The keys to merge into the job's metadata.
        scheduled_at: When the job may be claimed again; None if it is final.
        error: The entry to append to the job's errors; None if the attempt did not fail.
        give_back: Whether the attempt is not counted.
    """

    job_id: int
    attempt: int
    state: JobState
    metadata: Mapping[str, Any] | None = None
    scheduled_at: datetime | None = None
    error: AttemptError | None = None
    give_back: bool = False


class IfGone(StrEnum):
    """What to do with a job whose worker raises ObjectGone, because an object it needs is gone.

    `cancel`: the job is cancelled, with that reason. `fail`: the attempt fails, as with any other
    error, and the job is tried again. `discard`: the job is discarded, whatever attempts are left.
    """

    cancel = "cancel"
    fail = "fail"
    discard = "discard"


def decide(
    job: JobRow,
    error: BaseException | None,
    *,
    now: datetime,
    backoff: Backoff,
    metadata: Mapping[str, Any] | None = None,
    stopping: bool = False,
    set_cancelled: bool = False,
    conflict: bool = False,
    if_gone: IfGone = IfGone.cancel,
) -> Outcome:
    """Return the outcome of an attempt.

    Args:
        job: The job as it was claimed.
        error: What the worker raised; None if it returned.
        now: The database's time, aware.
        backoff: Returns when a failed job may be claimed again.
        metadata: The keys that the attempt sets in the job's metadata.
        stopping: Whether the client cancelled the attempt because it is stopping.
        set_cancelled: Whether an error handler asked to cancel the failed job.
        conflict: Whether the database rolled back its `ctx.transaction()` in a conflict with
            another transaction.
        if_gone: What to do with the job if an object that it refers to is gone.

    Source: River 0.51, internal/jobexecutor.
    """
    if error is None:
        return completed(job.id, job.attempt, metadata)
    staged = dict(metadata or {})

    def outcome(state: JobState, **rest: Any) -> Outcome:
        return Outcome(
            job_id=job.id, attempt=job.attempt, state=state, metadata=staged or None, **rest
        )

    match error:
        case JobSnooze():
            staged["snoozes"] = _snoozes(job.metadata) + 1
            soon = error.delay_s <= SCHEDULER_INTERVAL_S
            return outcome(
                JobState.available if soon else JobState.scheduled,
                scheduled_at=_later(now, error.delay_s),
                give_back=True,
            )
        case ObjectBusy():
            count = _count(job, WAITS_COUNT_KEY)
            staged |= {WAITS_KEY: error.args[1], WAITS_COUNT_KEY: count + 1}
            # Usually the job that holds the object makes this one due sooner. The pauses differ, so
            # that the waiting jobs do not all run at once if that job has failed.
            pause_s = min(WAIT_S * 2 ** min(count, 10), SCHEDULER_INTERVAL_S)
            pause_s = max(pause_s, error.waiting / TRIES_PER_S)
            at = _later(now, pause_s * (0.75 + job.id % 16 / 64))
            return outcome(JobState.available, scheduled_at=at, give_back=True)
        case NoConnection():
            # Not at once: whatever uses up the connections is likely to continue for a while.
            at = _later(now, SCHEDULER_INTERVAL_S)
            return outcome(JobState.available, scheduled_at=at, give_back=True)
        case ClientStopping() if stopping:
            return outcome(JobState.available, scheduled_at=now, give_back=True)
        case JobCancel() | JobCancelledRemotely():
            return outcome(JobState.cancelled, error=_entry(job, error, now))
        case ObjectGone() if if_gone is IfGone.cancel:
            return outcome(JobState.cancelled, error=_entry(job, error, now))
        case _ if conflict and may_begin_again(job):
            # The attempt did nothing wrong, and the database rolled back all that it wrote.
            count = _conflicts(job)
            staged[CONFLICTS_KEY] = count + 1
            at = _later(now, min(CONFLICT_S * 2**count, SCHEDULER_INTERVAL_S))
            return outcome(JobState.available, scheduled_at=at, give_back=True)
        case _ if set_cancelled:
            return outcome(JobState.cancelled, error=_entry(job, error, now))
        case ObjectGone() if if_gone is IfGone.discard:
            return outcome(JobState.discarded, error=_entry(job, error, now))
        case _ if job.attempt >= job.max_attempts:
            return outcome(JobState.discarded, error=_entry(job, error, now))
        case _:
            at = retry_at(job, now, backoff)
            soon = (at - now).total_seconds() <= SCHEDULER_INTERVAL_S
            return outcome(
                JobState.available if soon else JobState.retryable,
                scheduled_at=at,
                error=_entry(job, error, now),
            )


def may_begin_again(job: JobRow) -> bool:
    """Return whether one more conflict of the job's transaction is not counted as a failure."""
    return _conflicts(job) < CONFLICTS_MAX


def _conflicts(job: JobRow) -> int:
    # Counted over all attempts, so that a job that meets nothing but conflicts fails at last.
    return _count(job, CONFLICTS_KEY)


def _count(job: JobRow, key: str) -> int:
    count = job.metadata.get(key)
    return count if isinstance(count, int) and count > 0 else 0


def completed(job_id: int, attempt: int, metadata: Mapping[str, Any] | None = None) -> Outcome:
    """Return the outcome of an attempt whose worker returned."""
    merged = dict(metadata) if metadata else None
    return Outcome(job_id, attempt, JobState.completed, merged)


def retry_at(job: JobRow, now: datetime, backoff: Backoff) -> datetime:
    """Return when a failed job may be claimed again.

    This is what `backoff` returns. If it raises, or returns a time in the past or something other
    than an aware datetime, River's own backoff decides, and a warning is logged.
    """
    try:
        at = backoff(job, now)
        if isinstance(at, datetime) and at.utcoffset() is not None and at >= now:
            return at
        message = "the backoff of job %s returned no future time, but %s; River's backoff decides"
        logger.warning(message, job.id, type(at).__name__)
    except BaseException as error:  # a broken policy must not lose the job's outcome
        message = "the backoff of job %s failed, and River's backoff decides"
        log_error(logger, error, message, job.id, level=logging.WARNING)
    return RiverBackoff()(job, now)


def attempt_error(attempt: int, at: datetime, error: BaseException) -> AttemptError:
    """Return `error` as an entry of a job's errors. Texts that are too long are cut and marked."""
    return AttemptError(
        at=at,
        attempt=attempt,
        error=_cut(_clean(_text(error)), MAX_ERROR_CHARS),
        trace=_cut(_clean(_trace(error)), MAX_TRACE_CHARS),
    )


def error_json(error: AttemptError) -> dict[str, Any]:
    """Return `error` as the JSON object that River writes."""
    at = go_json.time(error.at)
    return {"at": at, "attempt": error.attempt, "error": error.error, "trace": error.trace}


def _entry(job: JobRow, error: BaseException, now: datetime) -> AttemptError:
    # River's rescuer writes its own time. The job's attempted_at was renewed while it was running.
    at = None if isinstance(error, JobRescued) else job.attempted_at
    return attempt_error(job.attempt, at or now, error)


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as broken:  # __str__ is the application's; the outcome must not be lost
        text = f"(its text cannot be had: {type(broken).__name__})"
    # River's words where it has its own, so that one search finds both (River 0.51, rivertype).
    match error:
        case JobCancelledRemotely():
            return f"JobCancelError: {text}"
        case UnknownKind():
            return f"job kind is not registered in the client's Workers bundle: {error.args[0]}"
        case _ if isinstance(error, _WITHOUT_TRACE):
            return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trace(error: BaseException) -> str:
    if isinstance(error, _WITHOUT_TRACE):
        return ""
    return trace_of(error)


def _clean(text: str) -> str:
    # jsonb can hold neither NUL nor half of a surrogate pair.
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    # Keep both ends: the outermost frame and the error itself are there.
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters cut ...\n{text[-half:]}"


def _later(now: datetime, delay_s: float) -> datetime:
    try:
        return now + timedelta(seconds=delay_s)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _snoozes(metadata: Mapping[str, Any]) -> int:
    """Return the snooze counter as River reads it: a value that is not a number counts as 0.

    Source: River 0.47, conformance/fixtures/maintenance_values.json.
    """
    match metadata.get("snoozes"):
        case int() as number:  # true counts as 1 in River, too
            count = int(number)
        case float() as number if math.isfinite(number):
            count = int(number)
        case str() as text if _NUMBER.fullmatch(text):
            count = int(text)
        case _:
            return 0
    return count if -_COUNT_MAX <= count < _COUNT_MAX else 0


def check_metadata(
    metadata: Mapping[str, Any], most: int = MAX_METADATA_BYTES
) -> Mapping[str, Any]:
    """Return `metadata` if a job's metadata can hold it.

    Raises:
        InvalidOption: If it cannot, or it is larger than `most` bytes of JSON.
    """
    metadata_text(metadata, most)
    return metadata


def check_output(output: object) -> object:
    """Return `output` if it can be kept with a job.

    Raises:
        InvalidOption: If JSON cannot hold it, or it is larger than 32 MB.
    """
    if problem := json_problem(output):
        raise InvalidOption("output", output, f"what JSON can hold; {problem}")
    if (size := json_size(json_text(output))) > MAX_OUTPUT_BYTES:
        limit = f"at most {MAX_OUTPUT_BYTES:,} bytes of JSON; keep a reference to it"
        raise InvalidOption("output", f"{size:,} bytes", limit)
    return output

"""Step 5 of 5, complete: jobs that a worker completes, or ends, in a transaction of its own.

Each verb here ends the caller's own claim. It changes the job only if it is still `running` at the
attempt that was claimed.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from riverrun.clock import Duration
from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import AttemptLost, InvalidOption, JobCancel, JobSnooze
from riverrun.jobs.json_values import json_text
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.outcome import MAX_ROW_BYTES, Outcome, attempt_error, check_metadata, decide
from riverrun.policies.backoff import Backoff, RiverBackoff
from riverrun.queries import complete as queries
from riverrun.verbs.record import record


@tried_again
def complete(
    tx: Tx,
    job: JobRow,
    *,
    metadata: Mapping[str, Any] | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> JobState:
    """Complete a claimed job, in one commit with everything else in the transaction.

    Args:
        tx: The transaction, as for `insert`.
        job: The job as it was claimed.
        metadata: What to merge into the job's metadata.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The state that the job now has.

    Raises:
        AttemptLost: If the job no longer runs at that attempt; roll the transaction back.
    """
    _check_claimed(job)
    staged = check_metadata(metadata, MAX_ROW_BYTES) if metadata else None
    return _end(tx, job, None, RiverBackoff(), staged, schema, now)


@tried_again
def fail(
    tx: Tx,
    job: JobRow,
    error: BaseException,
    *,
    backoff: Backoff | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> JobState:
    """Record the error of a claimed job: it is retried later, or discarded, cancelled or snoozed.

    Args:
        tx: The transaction, as for `insert`.
        job: The job as it was claimed.
        error: The exception. A JobCancel cancels the job, and a JobSnooze snoozes it.
        backoff: Returns when the job may be claimed again. Default: River's backoff.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The state that the job now has.

    Raises:
        AttemptLost: If the job no longer runs at that attempt.
        InvalidOption: If `job` was not returned by `claim`, or `error` is no exception.
    """
    _check(job, error)
    return _end(tx, job, error, backoff or RiverBackoff(), None, schema, now)


@tried_again
def snooze(
    tx: Tx,
    job: JobRow,
    delay: Duration,
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> JobState:
    """Let a claimed job run again after `delay`. The attempt is not counted.

    Args:
        tx: The transaction, as for `insert`.
        job: The job as it was claimed.
        delay: Seconds or a timedelta, not negative.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The state that the job now has.

    Raises:
        AttemptLost: If the job no longer runs at that attempt.
        InvalidOption: If `delay` is negative.
    """
    _check_claimed(job)
    return _end(tx, job, JobSnooze(delay), RiverBackoff(), None, schema, now)


def record_wish(
    tx: Tx,
    job: JobRow,
    wish: JobSnooze | JobCancel,
    *,
    metadata: Mapping[str, Any],
    now: datetime,
    schema: str | None = None,
) -> Outcome:
    """Snooze or cancel a claimed job in the worker's own transaction, and return the outcome.

    Args:
        tx: The worker's session.
        job: The job as it was claimed.
        wish: The exception that its worker raised.
        metadata: What to merge into the job's metadata.
        now: The database's time, aware.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        AttemptLost: If the job no longer runs at that attempt; roll the transaction back.
    """
    staged = check_metadata(metadata, MAX_ROW_BYTES) if metadata else None
    outcome = decide(job, wish, now=now, backoff=RiverBackoff(), metadata=staged)
    with joined(tx, schema) as transaction:
        outcome.state = _write_own(transaction, job, outcome, None)
    return outcome


@tried_again
def discard(
    tx: Tx,
    job: JobRow,
    error: BaseException,
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> JobState:
    """Record a claimed job's error and discard it, whatever attempts are left.

    Args:
        tx: The transaction, as for `insert`.
        job: The job as it was claimed.
        error: The error to record.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The state that the job now has.

    Raises:
        AttemptLost: If the job no longer runs at that attempt.
        InvalidOption: If `job` was not returned by `claim`, or `error` is no exception.
    """
    _check(job, error)
    with joined(tx, schema) as transaction:
        at = job.attempted_at or now or _now(transaction)
        entry = attempt_error(job.attempt, at, error)
        outcome = Outcome(job_id=job.id, attempt=job.attempt, state=JobState.discarded, error=entry)
        return _write_own(transaction, job, outcome, now)


@tried_again
def merge_metadata(
    tx: Tx,
    job: JobRow,
    metadata: Mapping[str, Any],
    *,
    schema: str | None = None,
) -> None:
    """Merge `metadata` into a claimed job's, in the caller's transaction.

    Raises:
        AttemptLost: If the job no longer runs at that attempt; roll the transaction back.
        InvalidOption: If JSON cannot hold the metadata.
    """
    params = {
        "job_id": job.id,
        "attempt_number": job.attempt,
        "merged": json_text(check_metadata(metadata)),
        "owner": _owner(job),
    }
    with joined(tx, schema) as transaction:
        if transaction.execute(queries.merge_metadata(), params).first() is None:
            raise AttemptLost(job.id, job.attempt)


def _end(
    tx: Tx,
    job: JobRow,
    error: BaseException | None,
    backoff: Backoff,
    metadata: Mapping[str, Any] | None,
    schema: str | None,
    now: datetime | None,
) -> JobState:
    with joined(tx, schema) as transaction:
        # A completion needs no query for the time, because its statement sets the time itself.
        moment = now or (_now(transaction) if error is not None else job.scheduled_at)
        outcome = decide(job, error, now=moment, backoff=backoff, metadata=metadata)
        return _write_own(transaction, job, outcome, now)


def _check_claimed(job: object) -> None:
    if not isinstance(job, JobRow):
        raise InvalidOption("job", job, "the JobRow that claim() returned")


def _check(job: object, error: object) -> None:
    _check_claimed(job)
    if not isinstance(error, BaseException):
        raise InvalidOption("error", error, "an exception, such as OSError('no route')")


def _write_own(
    transaction: Transaction, job: JobRow, outcome: Outcome, now: datetime | None
) -> JobState:
    states = record(transaction, [outcome], merge_anyway=False, owner=_owner(job), now=now)
    if outcome.job_id not in states:
        raise AttemptLost(outcome.job_id, outcome.attempt)
    return states[outcome.job_id]


def _owner(job: JobRow) -> str | None:
    """Return the client that claimed `job`; None if its row does not say."""
    return job.attempted_by[-1] if job.attempted_by else None


def _now(transaction: Transaction) -> datetime:
    value: datetime = transaction.execute(queries.clock(), {}).scalar_one()
    return value

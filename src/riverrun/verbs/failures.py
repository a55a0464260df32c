"""List failed jobs in groups of the same kind and the same error."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import attrs
from sqlalchemy import Row

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.jobs.checks import check_int
from riverrun.jobs.listing import JobBrief, JobListParams
from riverrun.jobs.states import JobState, state_of
from riverrun.queries import failures as queries
from riverrun.queries import read as read_queries
from riverrun.verbs.read import job_brief

TEXT_CHARS = 200
"""Maximum number of characters of a group's text."""

TREND_STEPS = 24

TREND_MAX_S = 7 * 24 * 3600.0

_HEX = "[0-9a-fA-F]"


_VARYING = re.compile(
    rf"(?<![0-9A-Za-z])(?:0[xX]{_HEX}+"
    # A UUID, or at least eight hexadecimal digits of which one is no letter.
    rf"|(?:{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}|(?=[a-fA-F]*[0-9]){_HEX}{{8,}})"
    r"(?![0-9A-Za-z]))"
    r"|(?:(?<!\w)-)?[0-9]+(?:[.,:-][0-9]+)*"
)
"""What differs between errors that have the same cause."""


@attrs.frozen(kw_only=True)
class FailureGroup:
    """Failed jobs of the same kind whose last errors are the same but for numbers.

    Attributes:
        key: A short text that identifies the kind and the error, always the same for both.
        kind: The kind of the jobs.
        text: The first line of the last error, with "#" for each number, UUID and hexadecimal
            text, and cut to 200 characters; empty without an error, or if the errors are too large
            to be read.
        count: How many jobs.
        states: How many of them are discarded, and how many retryable.
        first_at: When the first of them failed. For a retryable job this is the time at which its
            attempt began.
        last_at: When the last of them failed.
        trend: How many failed in each step of the list's trend, the earliest step first.
        job_ids: The ids of the jobs, those that failed last first.
    """

    key: str
    kind: str
    text: str
    count: int
    states: Mapping[JobState, int]
    first_at: datetime
    last_at: datetime
    trend: tuple[int, ...]
    job_ids: tuple[int, ...]


@attrs.frozen(kw_only=True)
class FailureList:
    """The groups of failed jobs.

    Attributes:
        groups: The groups, those with most jobs first.
        window: How many discarded and how many retryable jobs were read, at most.
        complete: Whether these were all failed jobs.
        since: When the first step of the trends begins. The last step ends now.
        step_s: Seconds of a step.
    """

    groups: Sequence[FailureGroup]
    window: int
    complete: bool
    since: datetime
    step_s: float


@attrs.frozen(kw_only=True)
class FailedJobs:
    """The jobs of one group.

    Attributes:
        group: The group; None if no failed job is in it any more.
        jobs: The jobs in short form, with their last errors, those that failed last first.
    """

    group: FailureGroup | None
    jobs: Sequence[JobBrief]


@tried_again
def list_failures(tx: Tx, *, window: int = 1_000, schema: str | None = None) -> FailureList:
    """Return failed jobs in groups: those discarded last, and retryable ones.

    Of the retryable jobs each queue and priority gets an equal share of the window.

    Args:
        tx: The transaction, as for `insert`.
        window: How many discarded and how many retryable jobs to read, 1 to 10,000. Default: 1,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("window", window, 1, 10_000)
    with joined(tx, schema) as transaction:
        return _read(transaction, window)


@tried_again
def list_failed(
    tx: Tx, key: str, *, window: int = 1_000, limit: int = 100, schema: str | None = None
) -> FailedJobs:
    """Return the jobs of one group of `list_failures`.

    Args:
        tx: The transaction, as for `insert`.
        key: The group's key.
        window: As for `list_failures`. A group of another window may have other jobs.
        limit: Maximum number of jobs, 1 to 10,000. Default: 100.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("window", window, 1, 10_000)
    check_int("limit", limit, 1, 10_000)
    with joined(tx, schema) as transaction:
        groups = _read(transaction, window).groups
        group = next((group for group in groups if group.key == key), None)
        if group is None:
            return FailedJobs(group=None, jobs=[])
        ids = group.job_ids[:limit]
        params = JobListParams(ids=ids, limit=limit)
        rows = transaction.execute(read_queries.list_briefs(params, errors=True), {})
        briefs = {row.id: job_brief(row) for row in rows}
    return FailedJobs(group=group, jobs=[briefs[job_id] for job_id in ids if job_id in briefs])


def _read(transaction: Transaction, window: int) -> FailureList:
    rows = transaction.execute(queries.read_failed(), {"window": window}).all()
    now_s = rows[0].now_s if rows else transaction.execute(queries.clock(), {}).scalar_one()
    earliest_s = min([row.at_s for row in rows], default=now_s)
    since_s = min(max(earliest_s, now_s - TREND_MAX_S), now_s)
    # A microsecond at least, to divide by.
    step_s = max(now_s - since_s, 1e-6) / TREND_STEPS
    grouped: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in rows:
        key = row.kind, pattern(row.error or "")
        if key in grouped:
            grouped[key].append(row)
        else:
            grouped[key] = [row]
    groups = [
        _group(kind, text, members, since_s, step_s) for (kind, text), members in grouped.items()
    ]
    groups.sort(key=lambda group: (-group.count, group.kind, group.text))
    return FailureList(
        groups=groups,
        window=window,
        complete=_complete(rows, window),
        since=_time(since_s),
        step_s=step_s,
    )


@lru_cache(maxsize=4_096)
def pattern(error: str) -> str:
    """Return the first line of an error without what differs between errors of one cause."""
    line = next(iter(error.strip().splitlines()), "")
    return _VARYING.sub("#", line)[:TEXT_CHARS]


def _group(
    kind: str, text: str, rows: Sequence[Row[Any]], since_s: float, step_s: float
) -> FailureGroup:
    last_first = sorted([(row.at_s, row.id) for row in rows], reverse=True)
    trend = [0] * TREND_STEPS
    for at_s, _ in last_first:
        if at_s < since_s:
            break
        trend[min(int((at_s - since_s) / step_s), TREND_STEPS - 1)] += 1
    digest = hashlib.sha256(f"{kind}\0{text}".encode(errors="surrogatepass"))
    states = Counter([row.state for row in rows])
    return FailureGroup(
        key=digest.hexdigest()[:16],
        kind=kind,
        text=text,
        count=len(rows),
        states={state_of(state): count for state, count in states.items()},
        first_at=_time(last_first[-1][0]),
        last_at=_time(last_first[0][0]),
        trend=tuple(trend),
        job_ids=tuple(job_id for _, job_id in last_first),
    )


def _time(epoch_s: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=epoch_s)


def _complete(rows: Sequence[Row[Any]], window: int) -> bool:
    """Return whether there are surely no jobs that were not read."""
    lines = Counter([row.line for row in rows])
    discarded = lines.pop(None, 0)
    share = max(queries.LEAST_SHARE, window // max(len(lines), 1))
    return discarded < window and all(count < share for count in lines.values())

"""Rescue: take back a job whose client is gone."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs

from riverrun.errors import JobRescued
from riverrun.job import JobRow
from riverrun.outcome import Outcome, decide
from riverrun.policies.backoff import Backoff
from riverrun.queries import upkeep
from riverrun.sessions import Where, joined
from riverrun.states import JobState
from riverrun.verbs.read import job_row
from riverrun.verbs.record import record

_COUNT_MAX = 2**63 - 1


@attrs.frozen(kw_only=True)
class Rescued:
    """What one turn of rescuing did.

    Attributes:
        states: The state each rescued job now has, by id.
        more: Whether there may be more.
    """

    states: dict[int, JobState]
    more: bool


def rescue(
    where: Where,
    *,
    dead_s: float,
    stuck_s: float | None,
    backoff: Callable[[str], Backoff],
    timeouts_s: Mapping[str, float | None] | None = None,
    limit: int = 1_000,
    schema: str | None = None,
    now: datetime | None = None,
) -> Rescued:
    """Take back running jobs whose client is gone: retry them, or discard or cancel.

    A job of a kind that nobody here knows is treated like any other: it may be another's.

    Args:
        where: Whose transaction, as for `insert`.
        dead_s: Seconds without a heartbeat after which a client is gone.
        stuck_s: Seconds that an attempt of a client without any heartbeat may take; None for as
            long as it likes.
        backoff: A kind's backoff.
        timeouts_s: By kind, the seconds that an attempt may take, None for as long as it likes:
            until then a client without any heartbeat keeps it.
        limit: Most jobs to rescue.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.
    """
    timeouts = timeouts_s or {}
    params: dict[str, Any] = {
        "kinds": list(timeouts),
        "timeouts_s": list(timeouts.values()),
        "dead_s": dead_s,
        "stuck_s": stuck_s,
        "limit": limit,
        "after_id": 0,
        "now": now,
    }
    with joined(where, schema) as transaction:
        rows = transaction.execute(upkeep.lost_jobs(), params).all()
        outcomes = [_outcome(job_row(row), row.moment, backoff(row.kind)) for row in rows]
        states = record(transaction, outcomes, merge_anyway=False, now=now) if outcomes else {}
        if len(rows) < limit:
            forget = {"dead_s": dead_s, "now": now}
            transaction.execute(upkeep.forget_clients(), forget)
    return Rescued(states=states, more=len(rows) == limit)


def _outcome(job: JobRow, now: datetime, backoff: Backoff) -> Outcome:
    count = job.metadata.get("river:rescue_count")
    # A number of thousands of digits could not be written again.
    rescued = (count if type(count) is int and abs(count) < _COUNT_MAX else 0) + 1
    return decide(
        job,
        JobRescued(),
        now=now,
        backoff=backoff,
        metadata={"river:rescue_count": rescued},
        set_cancelled="cancel_attempted_at" in job.metadata,
    )

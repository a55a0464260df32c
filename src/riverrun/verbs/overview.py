"""Find out what is wrong now."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from riverrun.clock import Duration
from riverrun.db.conflicts import tried_again
from riverrun.db.standby import is_standby
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.checks import check_duration, check_int
from riverrun.jobs.states import JobState
from riverrun.queries import kinds as kind_queries
from riverrun.queries import overview as queries

COUNT_MAX = 1_000
"""The count at which overdue jobs are no longer counted."""

KIND_WINDOW = 1_000
"""How many of the last jobs decide whether a kind is failing."""

FAILED_LEAST = 5

FAILED_SHARE = 0.2
"""The share of failed jobs from which a kind is a problem."""

_CENTURY_S = 3e9


class ProblemKind(StrEnum):
    """What is wrong, the worst first.

    Attributes:
        no_leader: No client leads, so nothing is scheduled, rescued or cleaned.
        silent_client: A client has jobs, but has had no heartbeat for too long.
        unworked_queue: A queue has due jobs, is not paused, and no live client works it.
        long_wait: The oldest due job of a queue that is not paused waits for too long.
        overdue: Jobs that are scheduled or to be retried were due some time ago.
        rescued: Jobs were rescued recently, because their client was gone.
        failing_kind: A kind fails often.
    """

    no_leader = "no_leader"
    silent_client = "silent_client"
    unworked_queue = "unworked_queue"
    long_wait = "long_wait"
    overdue = "overdue"
    rescued = "rescued"
    failing_kind = "failing_kind"


@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: What is wrong.
        subject: The client of `silent_client`, the queue of `unworked_queue` and `long_wait`, the
            kind of `failing_kind`; else None.
        state: The state of the jobs that are `overdue`: scheduled or retryable; else None.
        count: How many jobs are overdue, were rescued or have failed; else None.
        capped: Whether there are more than `count`.
        of: Of how many jobs `count` have failed, of a `failing_kind`; else None.
        since: The end of the last leader's term, if it is known; the last heartbeat of the client;
            when the oldest job was due. None for other problems.
        age_s: Seconds since `since`, by the database's clock.
    """

    kind: ProblemKind
    subject: str | None = None
    state: JobState | None = None
    count: int | None = None
    capped: bool = False
    of: int | None = None
    since: datetime | None = None
    age_s: float | None = None


@tried_again
def overview(
    tx: Tx,
    *,
    dead_s: Duration,
    wait_s: Duration = 60.0,
    late_s: Duration = 30.0,
    rescued_s: Duration = 3600.0,
    limit: int = 20,
    schema: str | None = None,
) -> list[Problem]:
    """Return what is wrong now, the worst first; an empty list if nothing is.

    A queue that no client works is not reported for its long wait, too. On a hot standby it is not
    known whether a client leads.

    Args:
        tx: The transaction, as for `insert`.
        dead_s: Seconds or timedelta without a heartbeat after which a client is gone.
        wait_s: Seconds or timedelta that a due job may wait. Default: 60 s.
        late_s: Seconds or timedelta that a scheduled or retryable job may be overdue. Default:
            30 s.
        rescued_s: Seconds or timedelta for which a rescue is reported. Default: 3,600 s.
        limit: Maximum number of problems of each kind, 1 to 1,000. Default: 20.
        schema: The schema of River's tables. Default: the search path's.
    """
    durations = {"dead_s": dead_s, "wait_s": wait_s, "late_s": late_s, "rescued_s": rescued_s}
    params: dict[str, Any] = {
        # A century at most, because PostgreSQL refuses much longer intervals.
        name: min(check_duration(name, value, 0), _CENTURY_S)
        for name, value in durations.items()
    }
    params |= {"limit": check_int("limit", limit, 1, 1_000), "most": COUNT_MAX}
    with joined(tx, schema) as transaction:
        statement = queries.problems(standby=is_standby(transaction.connection))
        found = [_problem(row) for row in transaction.execute(statement, params)]
        kinds = transaction.execute(kind_queries.kind_stats(), {"window": KIND_WINDOW}).all()
    unworked = {problem.subject for problem in found if problem.kind is ProblemKind.unworked_queue}
    found = [
        problem
        for problem in found
        if problem.kind is not ProblemKind.long_wait or problem.subject not in unworked
    ]
    failing = [
        Problem(kind=ProblemKind.failing_kind, subject=row.kind, count=row.failed, of=row.ended)
        for row in kinds
        if row.failed >= max(FAILED_LEAST, row.ended * FAILED_SHARE)
    ]
    failing.sort(key=lambda problem: -(problem.count or 0))
    order = list(ProblemKind)
    return sorted([*found, *failing[:limit]], key=lambda problem: order.index(problem.kind))


def _problem(row: Any) -> Problem:
    number = row.number
    return Problem(
        kind=ProblemKind(row.problem),
        subject=row.subject,
        state=None if row.state is None else JobState(row.state),
        count=None if number is None else min(number, COUNT_MAX),
        capped=number is not None and number > COUNT_MAX,
        since=row.since,
        age_s=row.age_s,
    )

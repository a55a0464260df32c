"""Count the jobs that wait, and find a job's place in line."""

from collections.abc import Mapping
from datetime import datetime

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.errors import JobNotFound
from riverrun.jobs.checks import check_int, check_job_id
from riverrun.jobs.states import JobState
from riverrun.queries import waiting as queries


@attrs.frozen(kw_only=True)
class WaitingCount:
    """The number of jobs in one queue and one state, counted up to a limit.

    Attributes:
        queue: The queue's name.
        state: The state, which is not a final one. It may be `running`.
        count: How many jobs, but at most the limit of the count.
        capped: Whether there are more jobs than `count`.
        oldest_at: The earliest `scheduled_at` of all of them.
        age_s: Seconds since `oldest_at`, by the database's clock; negative if it is in the future.
        by_priority: How many jobs each priority has, without priorities that have none; None if
            the count is capped.
    """

    queue: str
    state: JobState
    count: int
    capped: bool
    oldest_at: datetime
    age_s: float
    by_priority: Mapping[int, int] | None


@attrs.frozen(kw_only=True)
class Place:
    """A job's place in line.

    Attributes:
        ahead: How many jobs of its queue are claimed before it, but at most the limit of the count.
        capped: Whether there are more than `ahead`.
    """

    ahead: int
    capped: bool


@tried_again
def count_waiting(tx: Tx, *, most: int = 1_000, schema: str | None = None) -> list[WaitingCount]:
    """Return how many jobs there are by queue and state, without final jobs.

    It takes a few milliseconds however many jobs there are, because it stops at `most` in each
    queue and state. `count_jobs` counts all of them.

    Args:
        tx: The transaction, as for `insert`.
        most: The count at which to stop, 1 to 1,000,000. Default: 1,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("most", most, 1, 1_000_000)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.count_waiting(), {"most": most})
        return [
            WaitingCount(
                queue=row.queue,
                state=JobState(row.state),
                count=min(row.found, most),
                capped=row.found > most,
                oldest_at=row.oldest_at,
                age_s=row.age_s,
                by_priority=None if row.found > most else _by_priority(row),
            )
            for row in rows
        ]


@tried_again
def place_in_line(
    tx: Tx, job_id: int, *, most: int = 10_000, schema: str | None = None
) -> Place | None:
    """Return the place in line of an available job; None if the job is in another state.

    Jobs of its queue are ahead of it if a client claims them first: by priority, then by
    `scheduled_at`, then by id. Jobs that are not due yet are not counted.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        most: The count at which to stop, 1 to 1,000,000. Default: 10,000.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        JobNotFound: If there is no such job.
    """
    check_int("most", most, 1, 1_000_000)
    with joined(tx, schema) as transaction:
        params = {"job_id": check_job_id(job_id), "most": most}
        row = transaction.execute(queries.place_in_line(), params).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    if row.state != JobState.available:
        return None
    return Place(ahead=min(row.ahead, most), capped=row.ahead > most)


def _by_priority(row: object) -> dict[int, int]:
    counts = {number: getattr(row, f"priority_{number}") for number in queries.PRIORITIES}
    return {number: count for number, count in counts.items() if count}

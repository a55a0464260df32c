"""The log of a job that is running, as its client's last heartbeat has it."""

from datetime import datetime

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.checks import check_job_id
from riverrun.queries import live_log as queries


@attrs.frozen(kw_only=True)
class LiveLog:
    """The end of what a running attempt has logged.

    Attributes:
        attempt: The attempt's number.
        text: The last lines, at most 2,000 characters.
        at: When the client wrote them.
    """

    attempt: int
    text: str
    at: datetime


@tried_again
def get_live_log(tx: Tx, job_id: int, *, schema: str | None = None) -> LiveLog | None:
    """Return the end of a running job's log, at most 5 s old.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables. Default: the search path's.

    Returns:
        The log. None if the job is not running, has logged nothing, or its client has no
        `JobLog(live=True)` among its plugins.
    """
    with joined(tx, schema) as transaction:
        row = transaction.execute(
            queries.get_live_log(), {"job_id": check_job_id(job_id)}
        ).one_or_none()
    # The heartbeat may be of an earlier attempt.
    if row is None or not row.log or row.of != str(row.attempt):
        return None
    return LiveLog(attempt=row.attempt, text=row.log, at=row.heartbeat_at)

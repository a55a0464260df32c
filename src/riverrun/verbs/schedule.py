"""Schedule: make available what is due. After: notify."""

from datetime import datetime

import attrs

from riverrun.outcome import SCHEDULER_INTERVAL_S
from riverrun.queries import postgresql as queries
from riverrun.sessions import Where, joined
from riverrun.states import JobState
from riverrun.topics import Topic, insert_payload
from riverrun.verbs.notify import notify_in


@attrs.frozen(kw_only=True)
class Scheduled:
    """What one turn of scheduling did.

    Attributes:
        available: Jobs made available.
        discarded: Jobs discarded, since another held their unique key.
    """

    available: int
    discarded: int


def schedule(
    where: Where,
    *,
    limit: int = 10_000,
    schema: str | None = None,
    now: datetime | None = None,
) -> Scheduled:
    """Make retryable and scheduled jobs available that are due within 5 s, and tell their queues.

    Args:
        where: Whose transaction, as for `insert`.
        limit: Most jobs to move.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.
    """
    params = {"ahead_s": SCHEDULER_INTERVAL_S, "limit": limit, "now": now}
    with joined(where, schema) as transaction:
        rows = transaction.execute(queries.schedule_jobs(schema=schema), params).all()
        moved = [row for row in rows if row.state == JobState.available]
        if names := {row.queue for row in moved if row.due}:
            payloads = [insert_payload(name) for name in sorted(names)]
            notify_in(transaction, Topic.insert, payloads, schema=schema)
    return Scheduled(available=len(moved), discarded=len(rows) - len(moved))

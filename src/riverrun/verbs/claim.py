"""Step 3 of 5: claim. Before: notify. After: execute."""

from datetime import datetime

from riverrun.job import JobRow
from riverrun.options import check_int, check_queue
from riverrun.queries import postgresql as queries
from riverrun.sessions import Where, joined
from riverrun.states import JobState

CLAIM_MAX = 20_000
"""Most jobs that one statement claims."""


def claim(
    where: Where,
    queue: str = "default",
    *,
    limit: int = 1,
    client_id: str,
    schema: str | None = None,
    now: datetime | None = None,
) -> list[JobRow]:
    """Claim available jobs: lock them, mark them `running`, count the attempt.

    Nobody else can claim them once the transaction commits; if it rolls back they wait on.

    Args:
        where: Whose transaction, as for `insert`.
        queue: The queue to claim from.
        limit: Most jobs to claim, 1 to 20,000.
        client_id: Who claims, at most 100 characters.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.

    Returns:
        The jobs by priority, scheduled_at and id. Their unique keys are not read.
    """
    params = {
        "queue_name": check_queue(queue),
        "limit": check_int("limit", limit, 1, CLAIM_MAX),
        "client_id": client_id,
        "now": now,
    }
    with joined(where, schema) as transaction:
        rows = transaction.execute(queries.claim_jobs(), params).all()
    jobs = [
        JobRow(
            id=row.id,
            kind=row.kind,
            args=row.args,
            state=JobState.running,
            queue=queue,
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            priority=row.priority,
            created_at=row.created_at,
            scheduled_at=row.scheduled_at,
            attempted_at=row.attempted_at,
            attempted_by=tuple(row.attempted_by),
            errors=tuple(row.errors or ()),
            metadata=row.metadata_,
            tags=tuple(row.tags or ()),
        )
        for row in rows
    ]
    # UPDATE returns its rows in no order.
    jobs.sort(key=lambda job: (job.priority, job.scheduled_at, job.id))
    return jobs

"""Step 3 of 5, claim: the jobs that become `running`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined, time_of
from riverrun.errors import JobNotWaiting
from riverrun.jobs.checks import check_int, check_queue, check_text
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.queries import claim as queries
from riverrun.verbs.read import errors_of, get_in, json_object, json_value

CLAIM_MAX = 20_000
"""Maximum number of jobs that one statement claims."""

_ID, _KIND, _ARGS, _ATTEMPT, _METADATA = (
    queries.CLAIMED.index(name) for name in ("id", "kind", "args", "attempt", "metadata_")
)
Place = tuple[int, Any, int]
"""Where a job stands in line: its priority, the time at which it is due, and its id."""

Bounds = Mapping[int, Place]
"""The place of one job of each priority."""

_place = itemgetter(*(queries.CLAIMED.index(name) for name in ("priority", "scheduled_at", "id")))


class ClaimedJob:
    """A job as its claim returned it. It has what every attempt needs, and can make a JobRow.

    Making a JobRow takes longer than everything else between a claim and the call of a worker that
    takes only args.

    Attributes:
        id, kind, queue, attempt: The same as in JobRow.
    """

    __slots__ = ("_row", "attempt", "id", "kind", "queue")

    def __init__(self, row: Sequence[Any], queue: str) -> None:
        self.id: int = row[_ID]
        self.kind: str = row[_KIND]
        self.attempt: int = row[_ATTEMPT]
        self.queue = queue
        self._row = row

    @property
    def place(self) -> Place:
        """Its place in the line of its queue."""
        place: Place = _place(self._row)
        return place

    @property
    def args(self) -> Mapping[str, Any]:
        """The args, as in JobRow. They are decoded at each access."""
        args: Mapping[str, Any] = json_value(self._row[_ARGS])
        return args

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata, as in JobRow. It is decoded at each access."""
        return json_object(self._row[_METADATA])

    def may_have(self, key: str) -> bool:
        """Return whether its metadata may have `key`, without decoding it."""
        return key in (self._row[_METADATA] or "")

    @property
    def is_bare(self) -> bool:
        """Whether its metadata is empty."""
        return bool(self._row[_METADATA] == "{}")

    @property
    def metadata_bytes(self) -> int:
        """The approximate size of the metadata, in bytes of JSON."""
        return len(self._row[_METADATA] or "")

    def row(self) -> JobRow:
        """Return the job as a JobRow."""
        # In the order of CLAIMED.
        (
            job_id,
            kind,
            args,
            attempt,
            max_attempts,
            priority,
            created_at,
            scheduled_at,
            attempted_at,
            attempted_by,
            errors,
            metadata,
            tags,
        ) = self._row
        return JobRow(
            id=job_id,
            kind=kind,
            args=json_value(args),
            state=JobState.running,
            queue=self.queue,
            attempt=attempt,
            max_attempts=max_attempts,
            priority=priority,
            created_at=time_of(created_at),
            scheduled_at=time_of(scheduled_at),
            attempted_at=time_of(attempted_at),
            attempted_by=tuple(attempted_by),
            errors=errors_of(errors),
            metadata=json_object(metadata),
            tags=tuple(tags or ()),
        )


def claim(
    tx: Tx,
    queue: str = "default",
    *,
    limit: int = 1,
    client_id: str,
    schema: str | None = None,
    now: datetime | None = None,
) -> list[JobRow]:
    """Claim available jobs: lock them, mark them `running`, count the attempt.

    Once the transaction commits no other client can claim them. If it rolls back they keep waiting.

    Args:
        tx: The transaction, as for `insert`.
        queue: The queue to claim from.
        limit: Maximum number of jobs to claim, 1 to 20,000.
        client_id: The id of the claiming client, at most 100 characters.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The jobs by priority, scheduled_at and id. Their unique keys are not read.
    """
    check_text("client_id", client_id)
    jobs = claim_jobs(tx, queue, limit=limit, client_id=client_id, schema=schema, now=now)
    return [job.row() for job in jobs]


@tried_again
def claim_job(
    tx: Tx,
    job_id: int,
    *,
    client_id: str,
    schema: str | None = None,
    now: datetime | None = None,
) -> JobRow:
    """Claim one job by its id if it is waiting, due or not. For tests and consoles.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        client_id: The id of the claiming client, at most 100 characters.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        JobNotFound: If there is no such job.
        JobNotWaiting: If it is running or final, or another transaction has locked it.
    """
    params = {"job_id": job_id, "client_id": client_id, "now": now}
    with joined(tx, schema) as transaction:
        row = transaction.execute(queries.claim_job(), params).one_or_none()
        job = get_in(transaction, job_id)
        if row is None:
            raise JobNotWaiting(job_id, job.state)
    return ClaimedJob(row, job.queue).row()


@tried_again
def queues_waiting(tx: Tx, names: Iterable[str], *, schema: str | None = None) -> frozenset[str]:
    """Return which of the queues `names` have a job that a claim would get now."""
    with joined(tx, schema) as transaction:
        rows = transaction.rows(queries.queues_waiting(), {"names": sorted(names)})
        return frozenset(name for (name,) in rows)


@tried_again
def claim_jobs(
    tx: Tx,
    queue: str,
    *,
    limit: int,
    client_id: str,
    beyond: Bounds | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> list[ClaimedJob]:
    """Claim jobs as `claim` does, but without making JobRows.

    Args:
        tx: The transaction, as for `insert`.
        queue: The queue to claim from.
        limit: Maximum number of jobs to claim, 1 to 20,000.
        client_id: The id of the claiming client, at most 100 characters.
        beyond: By priority, the place up to which no job is claimed.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    params: dict[str, Any] = {
        "queue_name": check_queue(queue),
        "limit": check_int("limit", limit, 1, CLAIM_MAX),
        "client_id": client_id,
        "now": now,
    }
    statement = queries.claim_jobs()
    if beyond is not None:
        statement = queries.claim_jobs_beyond()
        for priority in queries.PRIORITIES:
            place = beyond.get(priority)
            since = "-infinity" if place is None else time_of(place[1]).isoformat()
            params[f"since_{priority}"] = since
            params[f"after_{priority}"] = -(2**63) if place is None else place[2]
    with joined(tx, schema) as transaction:
        rows = transaction.rows(statement, params, times=True)
    # UPDATE returns its rows in any order.
    return [ClaimedJob(row, queue) for row in sorted(rows, key=_place)]

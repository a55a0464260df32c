"""Make due retryable and scheduled jobs available. Step 2 of 5, notify, follows."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Engine, Executable

from riverrun.db.conflicts import tried_again
from riverrun.db.refusals import Fault, fault_of
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.states import JobState
from riverrun.outcome import SCHEDULER_INTERVAL_S
from riverrun.queries import schedule as queries
from riverrun.verbs.halves import by_halves, log_refused
from riverrun.verbs.notify import notify_in
from riverrun.wire.topics import Topic, insert_payload


@attrs.frozen(kw_only=True)
class Scheduled:
    """The result of one batch of scheduling.

    Attributes:
        available: How many jobs were made available.
        discarded: How many jobs were discarded, because another job held their unique key.
        refused: Ids of jobs that the database refused to change.
        more: Whether there may be more.
    """

    available: int
    discarded: int
    refused: tuple[int, ...] = ()
    more: bool = False


@tried_again
def schedule(
    tx: Tx,
    *,
    limit: int = 10_000,
    skip: Collection[int] = (),
    ids: Collection[int] | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> Scheduled:
    """Make retryable and scheduled jobs available that are due within 5 s, and notify clients.

    On an Engine, rows that the database or a trigger refuses to change are logged and skipped.

    Args:
        tx: The transaction, as for `insert`.
        limit: Maximum number of jobs to change.
        skip: Ids of jobs to leave out.
        ids: Ids of the only jobs to move. Default: all that are due.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    params: dict[str, Any] = {
        "ahead_s": SCHEDULER_INTERVAL_S,
        "limit": limit,
        "skipped": list(skip),
        "now": now,
    }
    if ids is not None:
        params["ids"] = list(ids)
    statement = queries.schedule_jobs(schema=schema, these=ids is not None)
    try:
        done = _schedule(tx, statement, params, schema)
        return attrs.evolve(done, more=done.available + done.discarded == limit)
    except Exception as error:
        # The first error aborts a transaction of the application's, so nothing more can be tried.
        if not isinstance(tx, Engine) or fault_of(error) is Fault.connection:
            raise
    with joined(tx, schema) as transaction:
        found = list(transaction.execute(queries.due_jobs(), params).scalars())
    if ids is not None:
        found = [job_id for job_id in found if job_id in ids]

    def act(part: Sequence[int]) -> Scheduled:
        these = queries.schedule_jobs(schema=schema, these=True)
        return _schedule(tx, these, {**params, "ids": list(part)}, schema)

    parts = by_halves(found, act)
    log_refused("jobs not scheduled", parts.refused)
    return Scheduled(
        available=sum(part.available for part in parts.results),
        discarded=sum(part.discarded for part in parts.results),
        refused=tuple(job_id for job_id, _ in parts.refused),
        more=len(found) == limit,
    )


def _schedule(
    tx: Tx, statement: Executable, params: Mapping[str, Any], schema: str | None
) -> Scheduled:
    with joined(tx, schema) as transaction:
        rows = transaction.execute(statement, params).all()
        moved = [row for row in rows if row.state == JobState.available]
        if names := {row.queue for row in moved if row.due}:
            payloads = [insert_payload(name) for name in sorted(names)]
            notify_in(transaction, Topic.insert, payloads, schema=schema)
    return Scheduled(available=len(moved), discarded=len(rows) - len(moved))

"""Step 3 of 5, claim: past the jobs that the database does not let a client claim.

One row can make each claim of its queue fail, if a trigger of the application raises for it or its
pages are damaged. A row whose update a trigger ignores takes the place of another one in each
claim, without being claimed. Either is found here, and then passed over.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Engine

from riverrun.db.conflicts import tried_again
from riverrun.db.refusals import UpdateIgnored
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.checks import check_int, check_queue
from riverrun.queries import claim_apart as queries
from riverrun.verbs.claim import CLAIM_MAX, ClaimedJob
from riverrun.verbs.halves import by_halves


@attrs.frozen(kw_only=True)
class ClaimedApart:
    """The result of `claim_apart`.

    Attributes:
        jobs: The claimed jobs, by priority, scheduled_at and id.
        refused: The ids of jobs that could not be claimed, each with the error.
    """

    jobs: Sequence[ClaimedJob]
    refused: Sequence[tuple[int, Exception]]


@tried_again
def claim_jobs_but(
    tx: Tx,
    queue: str,
    passed: Collection[int],
    *,
    limit: int,
    client_id: str,
    schema: str | None = None,
    now: datetime | None = None,
) -> list[ClaimedJob]:
    """Claim jobs as `claim_jobs` does, but pass over those whose ids are in `passed`."""
    params = {**_where(queue, limit, now), "passed": sorted(passed), "client_id": client_id}
    with joined(tx, schema) as transaction:
        rows = transaction.rows(queries.claim_jobs_but(), params, times=True)
    return _in_line(ClaimedJob(row, queue) for row in rows)


def claim_apart(
    engine: Engine,
    queue: str,
    passed: Collection[int],
    *,
    limit: int,
    client_id: str,
    schema: str | None = None,
    now: datetime | None = None,
) -> ClaimedApart:
    """Claim jobs as `claim_jobs_but` does, and find those that cannot be claimed.

    Args:
        engine: The engine. There are several transactions.
        queue: The queue to claim from.
        passed: The ids of jobs to pass over.
        limit: Maximum number of jobs to claim.
        client_id: The id of the claiming client.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        Exception: An error for which no job is at fault. Some jobs may be claimed.
    """
    where = {"queue_name": queue, "now": now}

    @tried_again
    def claim_listed(tx: Tx, ids: Sequence[int]) -> list[ClaimedJob]:
        params = {**where, "ids": list(ids), "client_id": client_id}
        with joined(tx, schema) as transaction:
            rows = transaction.rows(queries.claim_listed(), params, times=True)
            return [ClaimedJob(row, queue) for row in rows]

    @tried_again
    def read(tx: Tx, statement: Any, params: dict[str, Any]) -> list[int]:
        with joined(tx, schema) as transaction:
            return [job_id for (job_id,) in transaction.rows(statement, params)]

    params = {**_where(queue, limit, now), "passed": sorted(passed)}
    ids = read(engine, queries.claimable_jobs(), params)
    jobs: list[ClaimedJob] = []
    refused: list[tuple[int, Exception]] = []
    # Twice: a row that was locked for a moment looks like one whose update was ignored.
    for _ in range(2):
        found = by_halves(ids, lambda part: claim_listed(engine, part))
        jobs += [job for part in found.results for job in part]
        refused += found.refused
        left = set(ids) - {job.id for job in jobs} - {job_id for job_id, _ in refused}
        ids = (
            read(engine, queries.still_claimable(), {**where, "ids": sorted(left)}) if left else []
        )
    refused += [(job_id, UpdateIgnored()) for job_id in ids]
    return ClaimedApart(jobs=_in_line(jobs), refused=refused)


def _where(queue: str, limit: int, now: datetime | None) -> dict[str, Any]:
    return {
        "queue_name": check_queue(queue),
        "limit": check_int("limit", limit, 1, CLAIM_MAX),
        "now": now,
    }


def _in_line(jobs: Any) -> list[ClaimedJob]:
    return sorted(jobs, key=lambda job: job.place)

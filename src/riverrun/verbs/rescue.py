"""Rescue running jobs whose client is gone."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Engine

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.errors import JobRescued
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.logs.text import reason
from riverrun.outcome import Outcome, decide
from riverrun.policies.backoff import Backoff
from riverrun.queries import rescue as queries
from riverrun.verbs.clean import forget_clients
from riverrun.verbs.halves import by_halves, log_refused
from riverrun.verbs.read import job_row
from riverrun.verbs.record import batches, record, record_free
from riverrun.verbs.reduction import reductions

_COUNT_MAX = 2**63 - 1


@attrs.frozen(kw_only=True)
class Rescued:
    """The result of one batch of rescues.

    Attributes:
        states: The new state of each rescued job, by id.
        more: Whether there may be more.
        last_id: The id after which the next batch begins, if there may be more.
    """

    states: dict[int, JobState]
    more: bool
    last_id: int = 0


@tried_again
def rescue(
    tx: Tx,
    *,
    dead_s: float,
    stuck_s: float | None,
    backoff: Callable[[str], Backoff],
    timeouts_s: Mapping[str, float | None] | None = None,
    limit: int = 1_000,
    after_id: int = 0,
    schema: str | None = None,
    now: datetime | None = None,
) -> Rescued:
    """Rescue running jobs whose client is gone: retry, discard or cancel them.

    Jobs of kinds that this client does not know are rescued, too: another client may work them.

    Args:
        tx: The transaction, as for `insert`.
        dead_s: Seconds without a heartbeat after which a client is gone.
        stuck_s: Seconds after which an attempt of a client without heartbeats is rescued; None for
            never.
        backoff: Returns a kind's backoff.
        timeouts_s: By kind, the seconds that an attempt may take; None for no limit. Before that a
            client without heartbeats keeps its job.
        limit: Maximum number of jobs to rescue.
        after_id: Rescue only jobs with an id greater than this.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    timeouts = timeouts_s or {}
    params: dict[str, Any] = {
        "kinds": list(timeouts),
        "timeouts_s": list(timeouts.values()),
        "dead_s": dead_s,
        "stuck_s": stuck_s,
        "limit": limit,
        "after_id": after_id,
        "now": now,
    }
    states: dict[int, JobState] = {}
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.lost_jobs(), params).all()
        outcomes = [_outcome(job_row(row), row.moment, backoff(row.kind)) for row in rows]
        # On an Engine the outcomes are written in other transactions, after the locks are gone, but
        # only to jobs that still run at the same attempt.
        if outcomes and not isinstance(tx, Engine):
            states = record(transaction, outcomes, merge_anyway=False, now=now)
    if isinstance(tx, Engine):
        states = _record_apart(tx, outcomes, schema, now)
    more = bool(rows) and (rows[0].found == limit or rows[0].found > len(rows))
    if not more:
        forget_clients(tx, dead_s=dead_s, schema=schema, now=now)
    return Rescued(states=states, more=more, last_id=max((row.id for row in rows), default=0))


def _record_apart(
    engine: Engine, outcomes: Sequence[Outcome], schema: str | None, now: datetime | None
) -> dict[int, JobState]:
    states: dict[int, JobState] = {}

    def act(part: Sequence[Outcome]) -> None:
        for batch in batches(part, merge_anyway=False):
            with joined(engine, schema) as transaction:
                states.update(record_free(transaction, batch, now=now).states)

    done = by_halves(outcomes, act)
    refused = []
    for outcome, error in done.refused:
        forms = [form for _, form in reductions(outcome, reason(error))]
        if not any(by_halves([form], act).results for form in forms):
            refused.append((outcome.job_id, error))
    log_refused("jobs not rescued", refused)
    return states


def _outcome(job: JobRow, now: datetime, backoff: Backoff) -> Outcome:
    count = job.metadata.get("river:rescue_count")
    # A number with thousands of digits could not be written again.
    rescued = (count if type(count) is int and abs(count) < _COUNT_MAX else 0) + 1
    return decide(
        job,
        JobRescued(),
        now=now,
        backoff=backoff,
        metadata={"river:rescue_count": rescued},
        set_cancelled="cancel_attempted_at" in job.metadata,
    )

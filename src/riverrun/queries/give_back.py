"""The statements of `verbs.give_back`: make a client's own running jobs available again."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, Job
from riverrun.queries.expressions import is_another_s, last_claimer, readable, state_literal


def _mine() -> ColumnElement[bool]:
    """Return the condition for a running job that bind `client_id` was the last to claim."""
    return and_(
        Job.state == state_literal(JobState.running),
        last_claimer() == bindparam("client_id", type_=Text),
    )


def _array(name: str, type_: Any) -> Any:
    # Bound as text, so that the driver need not adapt each item.
    return cast(bindparam(name, type_=Text), ARRAY(type_))


def _give_back(rows: Any, fence: ColumnElement[bool]) -> Update:
    """Give back the jobs in `rows` that fulfil the condition `fence`, and skip locked ones."""
    free = (
        select(Job.id)
        # Not a JOIN, which would hide the table's system columns.
        .where(Job.id == rows.c.id, _mine(), fence)
        .order_by(Job.id)
        # No key changes, so this need not wait for transactions that insert references to the job.
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("free")
    )
    unwanted = Job.metadata_.has_key("cancel_attempted_at")
    claims_before = Job.attempted_by[1 : func.array_length(Job.attempted_by, 1) - 1]
    return (
        update(Job)
        # Not a join, for the same reason as in `claim_jobs`.
        .where(Job.id == func.any(func.array(select(free.c.id).scalar_subquery())))
        .values(
            state=case(
                (unwanted, state_literal(JobState.cancelled)),
                else_=state_literal(JobState.available),
            ),
            attempt=case((unwanted, Job.attempt), else_=func.greatest(Job.attempt - 1, 0)),
            attempted_at=case((or_(unwanted, Job.attempt > 1), Job.attempted_at), else_=None),
            attempted_by=case(
                (unwanted, Job.attempted_by),
                else_=func.nullif(claims_before, cast(literal_column("'{}'"), ARRAY(Text))),
            ),
            finalized_at=case((unwanted, func.now()), else_=None),
        )
        .returning(Job.id, readable(Job.state).label("state"))
    )


@lru_cache
def give_back_jobs() -> Update:
    """Make the jobs in binds `ids` and `attempts`, two arrays, available again.

    This changes only jobs that are running at that attempt for `client_id`. A job that was marked
    as cancelled in the meantime is cancelled instead. Locks the rows by id, and skips locked ones.
    Index: river_job_pkey.
    """
    claims = (
        func.unnest(_array("ids", BigInteger), _array("attempts", Integer))
        .table_valued(column("id", BigInteger), column("attempt", Integer))
        .render_derived(name="claims")
    )
    return _give_back(claims, Job.attempt == claims.c.attempt)


@lru_cache
def running_jobs() -> Select[Any]:
    """Read the jobs that are running for `client_id`, each with the version of its row.

    None if the name belongs to another instance than bind `instance`, whose jobs they are. Locks
    nothing. Index: river_job_prioritized_fetching_index, whose part for running jobs is small, and
    riverrun_client_pkey.
    """
    # xmin is the transaction that wrote the row last, so each change gives it another value.
    version: Any = literal_column("xmin::text").label("version")
    name = ClientRecord.id == bindparam("client_id", type_=Text)
    return select(Job.id, Job.queue, version).where(_mine(), ~exists().where(name, is_another_s()))


@lru_cache
def give_back_unchanged() -> Update:
    """Give back the jobs in binds `ids` whose rows still have the versions in bind `versions`.

    Index: river_job_pkey.
    """
    seen = (
        func.unnest(_array("ids", BigInteger), _array("versions", Text))
        .table_valued(column("id", BigInteger), column("version", Text))
        .render_derived(name="seen")
    )
    return _give_back(seen, literal_column("xmin::text") == seen.c.version)

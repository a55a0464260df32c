"""The statements that make a client's own running jobs available again, their attempts returned."""

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
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import readable, state_literal


def _mine() -> ColumnElement[bool]:
    """Return whether a job runs, and bind `client_id` is the last that claimed it."""
    owner = Job.attempted_by[func.array_length(Job.attempted_by, 1)]
    return and_(
        Job.state == state_literal(JobState.running),
        owner == bindparam("client_id", type_=Text),
    )


def _array(name: str, type_: Any) -> Any:
    # As text, which needs no adapting item by item.
    return cast(bindparam(name, type_=Text), ARRAY(type_))


def _give_back(rows: Any, fence: ColumnElement[bool]) -> Update:
    """Give back the jobs named by `rows` that pass `fence`; skip what others have locked."""
    free = (
        select(Job.id)
        # Not JOIN, which hides the table's system columns.
        .where(Job.id == rows.c.id, _mine(), fence)
        .order_by(Job.id)
        # No key changes: a row that refers to the job, in an open transaction, does not matter.
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("free")
    )
    unwanted = Job.metadata_.has_key("cancel_attempted_at")
    claims_before = Job.attempted_by[1 : func.array_length(Job.attempted_by, 1) - 1]
    return (
        update(Job)
        # Not a join, for the planner's sake: as when jobs are claimed.
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

    Only where they run at that attempt for `client_id`. One that was asked to cancel meanwhile is
    cancelled instead. Locks by id, and skips what others have locked. Index: river_job_pkey.
    """
    claims = (
        func.unnest(_array("ids", BigInteger), _array("attempts", Integer))
        .table_valued(column("id", BigInteger), column("attempt", Integer))
        .render_derived(name="claims")
    )
    return _give_back(claims, Job.attempt == claims.c.attempt)


@lru_cache
def running_jobs() -> Select[Any]:
    """Read the jobs that run for `client_id`, each with its row's version.

    Locks nothing. Index: river_job_prioritized_fetching_index, whose part for running jobs is
    small.
    """
    # Another transaction's number with each change of the row.
    version: Any = literal_column("xmin::text").label("version")
    return select(Job.id, Job.queue, version).where(_mine())


@lru_cache
def give_back_unchanged() -> Update:
    """Do as `give_back_jobs` with the rows in binds `ids` and `versions` that have not changed.

    Index: river_job_pkey.
    """
    seen = (
        func.unnest(_array("ids", BigInteger), _array("versions", Text))
        .table_valued(column("id", BigInteger), column("version", Text))
        .render_derived(name="seen")
    )
    return _give_back(seen, literal_column("xmin::text") == seen.c.version)

"""The statement of `verbs.rescues`, and the expressions for rescued jobs."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from riverrun.errors import JobRescued
from riverrun.models import Job
from riverrun.queries.expressions import job_column, readable

ERRORS_BYTES = 64_000
"""Largest errors of a job, in bytes as stored, in which the last rescue is looked for."""


METADATA_BYTES = 100_000
"""Largest metadata of a job, in bytes as stored, from which the count is read."""


@lru_cache
def list_rescued() -> Select[Any]:
    """Read up to `limit` rescued jobs with an id below `before`, the newest first.

    Indexes: river_job_metadata_index; river_job_pkey.
    """
    small = func.pg_column_size(Job.metadata_) <= METADATA_BYTES
    count = case((small, func.left(Job.metadata_.op("->>")(_COUNT), 20)))
    return (
        select(
            Job.id,
            Job.kind,
            Job.queue,
            readable(Job.state).label("state"),
            count.label("rescues"),
            rescued_at().label("rescued_at"),
            job_column("attempted_by").label("attempted_by"),
        )
        .where(was_rescued(), Job.id < bindparam("before", type_=BigInteger))
        .order_by(Job.id.desc())
        .limit(bindparam("limit", type_=Integer))
    )


_COUNT = literal_column("'river:rescue_count'", Text)


def was_rescued() -> ColumnElement[bool]:
    """Return the condition for a job that was rescued at least once."""
    # A literal, so that the planner knows how rare it is.
    found: ColumnElement[bool] = Job.metadata_.has_key(_COUNT)
    return found


def rescued_at() -> ColumnElement[Any]:
    """Return the time in the last error that a rescue wrote, as text."""
    small = func.pg_column_size(Job.errors) <= ERRORS_BYTES
    errors = (
        func.unnest(case((small, Job.errors)))
        .table_valued(column("error", JSONB), with_ordinality="number")
        .render_derived(name="errors")
    )
    return (
        select(func.left(errors.c.error.op("->>")("at"), 64))
        .where(errors.c.error.op("->>")("error") == str(JobRescued()))
        .order_by(errors.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )

"""The statements of `verbs.insert`."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Insert,
    Integer,
    SmallInteger,
    Text,
    Update,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert

from riverrun.jobs.columns import JobStateType, Timestamp
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import NOW, in_mask, job_columns, records, state_literal

_INSERTED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "args": (Text, lambda value: cast(value, JSONB)),
    "kind": (Text, lambda value: value),
    "max_attempts": (SmallInteger, lambda value: value),
    "metadata": (Text, lambda value: cast(value, JSONB)),
    "priority": (SmallInteger, lambda value: value),
    "queue": (Text, lambda value: value),
    "created_at": (Text, lambda value: cast(value, Timestamp)),
    "scheduled_at": (Text, lambda value: func.coalesce(cast(value, Timestamp), func.now())),
    "state": (Text, lambda value: cast(value, JobStateType)),
    "tags": (Text, lambda value: cast(value, Job.tags.type)),
    "unique_key": (Text, lambda value: func.decode(value, "hex")),
    "unique_states": (Text, lambda value: cast(value, Job.unique_states.type)),
}
"""What an insert may give: the type in which a column is bound, and what becomes of the bind."""


@lru_cache(maxsize=1024)
def insert_job(columns: Sequence[str], *, schema: str | None, unique: bool) -> Insert:
    """Insert the job whose `columns` are binds `job_args`, ...; the table's defaults are the rest.

    Returns what only the database knows: of a `unique` job, which may be a duplicate, all; see
    `insert_jobs`. River: JobInsertFastMany.
    """
    statement = insert(Job).values(
        {
            # By table column: an attribute of a mapped class cannot be named metadata.
            Job.__table__.c[name]: _INSERTED[name][1](
                bindparam(f"job_{name}", type_=_INSERTED[name][0])
            )
            for name in columns
        }
    )
    return _returning(statement, schema=schema, unique=unique)


@lru_cache(maxsize=1024)
def insert_jobs(columns: Sequence[str], *, schema: str | None, unique: bool) -> Insert:
    """Insert the jobs whose `columns` are binds `jobs_args`, ..., each the text of an array.

    Of `unique` jobs, one whose key is taken returns the job that has it, and locks that. Index:
    river_job_unique_idx. River: JobInsertFastMany.
    """
    rows = (
        func.unnest(
            *(
                cast(bindparam(f"jobs_{name}", type_=Text), ARRAY(_INSERTED[name][0]))
                for name in columns
            )
        )
        .table_valued(*columns, with_ordinality="n", name="jobs")
        .render_derived(name="jobs")
    )
    source = select(*(_INSERTED[name][1](rows.c[name]) for name in columns)).order_by(rows.c.n)
    statement = insert(Job).from_select(list(columns), source)
    return _returning(statement, schema=schema, unique=unique)


def _returning(statement: PostgresInsert, *, schema: str | None, unique: bool) -> Insert:
    # Raw: the parameters are binds of the statement, not rows for the ORM to insert.
    statement = statement.execution_options(dml_strategy="raw")
    if not unique:
        return statement.returning(Job.id, Job.created_at)
    statement = statement.on_conflict_do_update(
        index_elements=[Job.unique_key],
        index_where=and_(
            Job.unique_key.is_not(None),
            Job.unique_states.is_not(None),
            in_mask(Job.unique_states, Job.state, schema),
        ),
        # Something must be set for the row to come back; its kind may be another's.
        set_={"kind": Job.kind},
    )
    # A row that was inserted by this very statement has no deleting transaction.
    return statement.returning(*job_columns(), literal_column("xmax::text <> '0'").label("skipped"))


@lru_cache
def change_waiting() -> Update:
    """Change jobs that wait, as the records in bind `changes` say; a null leaves as it is.

    Locks the rows by id; an insert that met them has done so already. Index: river_job_pkey.
    """
    rows = records(
        "changes",
        column("id", BigInteger),
        column("args", JSONB),
        column("metadata", JSONB),
        column("priority", SmallInteger),
        column("tags", ARRAY(Text)),
        column("reschedule", Integer),
        column("scheduled_at", Timestamp),
    )
    waiting = Job.state.in_(
        [
            state_literal(state)
            for state in (
                JobState.available,
                JobState.pending,
                JobState.retryable,
                JobState.scheduled,
            )
        ]
    )
    moved = and_(rows.c.reschedule == 1, Job.state != state_literal(JobState.pending))
    return (
        update(Job)
        .where(Job.id == rows.c.id, waiting)
        .values(
            args=func.coalesce(rows.c.args, Job.args),
            metadata_=func.coalesce(Job.metadata_.op("||")(rows.c.metadata), Job.metadata_),
            priority=func.coalesce(rows.c.priority, Job.priority),
            tags=func.coalesce(cast(rows.c.tags, Job.tags.type), Job.tags),
            scheduled_at=case(
                (rows.c.reschedule == 1, func.coalesce(rows.c.scheduled_at, NOW)),
                else_=Job.scheduled_at,
            ),
            state=case(
                (and_(moved, rows.c.scheduled_at.is_(None)), state_literal(JobState.available)),
                (moved, state_literal(JobState.scheduled)),
                else_=Job.state,
            ),
        )
        .returning(*job_columns())
    )

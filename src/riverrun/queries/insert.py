"""The statements of `verbs.insert`."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
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
    not_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert

from riverrun.jobs.columns import JobStateType, Timestamp
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import NOW, in_mask, job_columns, records, state_literal
from riverrun.queries.notify import notification

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
"""The columns that an insert can set: the type of the bind, and the expression made from it."""


_KNOWN = frozenset({"kind", "args", "queue", "metadata_", "tags"})


@lru_cache(maxsize=1024)
def insert_job(
    columns: Sequence[str], *, schema: str | None, named: bool, unique: bool, notify: bool = False
) -> Insert:
    """Insert a job. Its `columns` are binds named `job_args` and so on; the others have defaults.

    `named` is whether the schema is named, which decides how it notifies. Only a `unique` job needs
    the name of the `schema`, because its statement is made for each schema.

    Returns the columns that only the database knows. For a `unique` job, which may be a duplicate,
    it returns the columns of the job that holds the key, as `insert_jobs` does. With `notify`, an
    insert that is no duplicate also does what `queries.notify.notify` does, for the same binds.
    River: JobInsertFastMany.
    """
    statement = insert(Job).values(
        {
            # By the table's columns, because a mapped class can have no attribute named metadata.
            Job.__table__.c[name]: _INSERTED[name][1](
                bindparam(f"job_{name}", type_=_INSERTED[name][0])
            )
            for name in columns
        }
    )
    return _returning(statement, schema=schema, named=named, unique=unique, notify=notify)


@lru_cache(maxsize=1024)
def insert_jobs(
    columns: Sequence[str], *, schema: str | None, named: bool, unique: bool, notify: bool = False
) -> Insert:
    """Insert many jobs. Their `columns` are binds named `jobs_args` and so on, texts of arrays.

    For a `unique` job whose key is taken, it locks and returns the job that holds the key. With
    `notify` it notifies once, if any job is no duplicate. Index: river_job_unique_idx. River:
    JobInsertFastMany.
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
    return _returning(statement, schema=schema, named=named, unique=unique, notify=notify)


def _returning(
    statement: PostgresInsert, *, schema: str | None, named: bool, unique: bool, notify: bool
) -> Insert:
    # "raw": the parameters are binds of the statement, and not rows for the ORM to insert.
    statement = statement.execution_options(dml_strategy="raw")
    sent = [notification(named=named)] if notify else []
    if not unique:
        return statement.returning(Job.id, Job.created_at, *sent)
    statement = statement.on_conflict_do_update(
        index_elements=[Job.unique_key],
        index_where=and_(
            Job.unique_key.is_not(None),
            Job.unique_states.is_not(None),
            in_mask(Job.unique_states, Job.state, schema),
        ),
        # Something must be set, or the row is not returned. This sets the row's own kind, because
        # the new job may be of another kind.
        set_={"kind": Job.kind},
    )
    # xmax is 0 in a row that this statement has inserted.
    skipped: ColumnElement[bool] = literal_column("xmax::text <> '0'")
    sent = [case((not_(skipped), column)) for column in sent]
    # What was just inserted is not sent back: it is known, and the session's encoding may lack it.
    columns = [
        case((skipped, column.element)).label(column.name) if column.name in _KNOWN else column
        for column in job_columns()
    ]
    return statement.returning(*columns, skipped.label("skipped"), *sent)


@lru_cache
def change_waiting() -> Update:
    """Change waiting jobs by the records in bind `changes`. A null leaves a column unchanged.

    Locks the rows by id; the insert that found them has locked them already. Index: river_job_pkey.
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

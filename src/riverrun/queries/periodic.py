"""The statements of `verbs.periodic`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import Insert, Integer, Select, Text, Update, bindparam, column, func
from sqlalchemy import select as sa_select
from sqlalchemy import update as sa_update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from riverrun.jobs.columns import Timestamp
from riverrun.models import PeriodicRun
from riverrun.queries.expressions import NOW

_COLUMNS: tuple[Any, ...] = (
    PeriodicRun.id.label("id"),
    PeriodicRun.next_run_at.label("next_run_at"),
    PeriodicRun.last_run_at.label("last_run_at"),
)


def _pairs() -> Any:
    return (
        func.unnest(bindparam("ids", type_=ARRAY(Text)), bindparam("times", type_=ARRAY(Timestamp)))
        .table_valued(column("id", Text), column("next_run_at", Timestamp))
        .render_derived(name="pairs")
    )


@lru_cache
def plan_runs() -> Insert:
    """Plan the next run of binds `ids` at binds `times`, unless an earlier one is planned.

    A later run is moved, because the schedule may have become a more frequent one. Locks the rows
    that it changes.
    """
    pairs = _pairs()
    source = sa_select(pairs.c.id, pairs.c.next_run_at).order_by(pairs.c.id)
    statement = insert(PeriodicRun).from_select(["id", "next_run_at"], source)
    return (
        statement.on_conflict_do_update(
            index_elements=[PeriodicRun.id],
            set_={"next_run_at": statement.excluded.next_run_at, "updated_at": NOW},
            where=PeriodicRun.next_run_at > statement.excluded.next_run_at,
        )
        .returning(*_COLUMNS)
        .execution_options(dml_strategy="raw")
    )


@lru_cache
def due_runs() -> Select[Any]:
    """Read and lock the runs of binds `ids` that are due, and skip locked rows."""
    return (
        sa_select(*_COLUMNS)
        .where(
            PeriodicRun.id == func.any(bindparam("ids", type_=ARRAY(Text))),
            PeriodicRun.next_run_at <= NOW,
        )
        .order_by(PeriodicRun.id)
        .with_for_update(skip_locked=True)
    )


@lru_cache
def next_runs() -> Select[Any]:
    """Read the next runs of binds `ids`."""
    return sa_select(*_COLUMNS).where(
        PeriodicRun.id == func.any(bindparam("ids", type_=ARRAY(Text)))
    )


@lru_cache
def list_runs() -> Select[Any]:
    """Read up to `limit` periodic jobs by id."""
    return sa_select(*_COLUMNS).order_by(PeriodicRun.id).limit(bindparam("limit", type_=Integer))


@lru_cache
def advance_runs() -> Update:
    """Set the next runs of binds `ids` to binds `times`, and their last runs to now."""
    pairs = _pairs()
    return (
        sa_update(PeriodicRun)
        .where(PeriodicRun.id == pairs.c.id)
        .values(next_run_at=pairs.c.next_run_at, last_run_at=NOW, updated_at=NOW)
        .returning(PeriodicRun.id)
    )

"""The statements of `verbs.periodic`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Insert,
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
    or_,
)
from sqlalchemy import select as sa_select
from sqlalchemy import update as sa_update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from riverrun.jobs.columns import Timestamp
from riverrun.models import PeriodicRun
from riverrun.queries.expressions import NOW, seconds

_COLUMNS: tuple[Any, ...] = (
    PeriodicRun.id.label("id"),
    PeriodicRun.next_run_at.label("next_run_at"),
    PeriodicRun.last_run_at.label("last_run_at"),
)

_SWITCHES: tuple[Any, ...] = (
    PeriodicRun.paused_at.label("paused_at"),
    PeriodicRun.resumed_at.label("resumed_at"),
    PeriodicRun.run_now_at.label("run_now_at"),
)

_TEXTS = ("kind", "queue", "schedule", "zone")

_NAMED = PeriodicRun.id == bindparam("periodic_id", type_=Text)


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
def due_runs(*, switches: bool) -> Select[Any]:
    """Read and lock the runs of binds `ids` that are due, and skip locked rows.

    Args:
        switches: Whether to read the columns of version 3 too, and the jobs that are to run now.
    """
    due = PeriodicRun.next_run_at <= NOW
    if switches:
        due = or_(due, PeriodicRun.run_now_at.is_not(None))
    return (
        sa_select(*_COLUMNS, *(_SWITCHES if switches else ()))
        .where(PeriodicRun.id == func.any(bindparam("ids", type_=ARRAY(Text))), due)
        .order_by(PeriodicRun.id)
        .with_for_update(skip_locked=True)
    )


@lru_cache
def paused_runs() -> Select[Any]:
    """Read which of binds `ids` are paused."""
    return sa_select(PeriodicRun.id).where(
        PeriodicRun.id == func.any(bindparam("ids", type_=ARRAY(Text))),
        PeriodicRun.paused_at.is_not(None),
    )


@lru_cache
def next_runs() -> Select[Any]:
    """Read the next runs of binds `ids`."""
    return sa_select(*_COLUMNS).where(
        PeriodicRun.id == func.any(bindparam("ids", type_=ARRAY(Text)))
    )


@lru_cache
def list_runs() -> Select[Any]:
    """Read up to `limit` periodic jobs by id, or the one with bind `periodic_id`.

    The columns of version 3 are read from the row as JSON, where a missing one is null. So this
    statement works at version 2, too.
    """
    runs = PeriodicRun.__table__.alias("runs")
    row = func.to_jsonb(runs.table_valued())
    periodic_id = cast(bindparam("periodic_id"), Text)
    paused_at = _time_in(row, "paused_at")
    overdue = and_(runs.c.next_run_at < NOW - seconds("grace_s"), paused_at.is_(None))
    columns: list[Any] = [
        *(runs.c[name].label(name) for name in ("id", "next_run_at", "last_run_at")),
        *(row.op("->>")(name).label(name) for name in _TEXTS),
        paused_at.label("paused_at"),
        _time_in(row, "run_now_at").label("run_now_at"),
        overdue.label("overdue"),
    ]
    return (
        sa_select(*columns)
        .where(or_(periodic_id.is_(None), runs.c.id == periodic_id))
        .order_by(runs.c.id)
        .limit(bindparam("limit", type_=Integer))
    )


def _time_in(row: Any, name: str) -> Any:
    return cast(row.op("->>")(name), Timestamp)


@lru_cache
def describe_runs() -> Update:
    """Set the kinds, queues, schedules and zones of binds `ids` where they differ.

    A kind or queue that is null is not known, and leaves the row as it is.
    """
    names = ("ids", "kinds", "queues", "schedules", "zones")
    new = (
        func.unnest(*(bindparam(name, type_=ARRAY(Text)) for name in names))
        .table_valued(column("id", Text), *(column(name, Text) for name in _TEXTS))
        .render_derived(name="new")
    )
    values: dict[str, Any] = {
        "kind": func.coalesce(new.c.kind, PeriodicRun.kind),
        "queue": func.coalesce(new.c.queue, PeriodicRun.queue),
        "schedule": new.c.schedule,
        "zone": new.c.zone,
    }
    differs = [getattr(PeriodicRun, name).is_distinct_from(values[name]) for name in _TEXTS]
    return sa_update(PeriodicRun).where(PeriodicRun.id == new.c.id, or_(*differs)).values(values)


@lru_cache
def pause_run() -> Update:
    """Pause the periodic job `periodic_id`. One that is paused keeps the time of its pause."""
    paused_at = func.coalesce(PeriodicRun.paused_at, NOW)
    return _switch(paused_at=paused_at)


@lru_cache
def resume_run() -> Update:
    """Resume the periodic job `periodic_id`: no run before now is made up for."""
    paused = PeriodicRun.paused_at.is_not(None)
    resumed_at = case((paused, NOW), else_=PeriodicRun.resumed_at)
    return _switch(paused_at=None, resumed_at=resumed_at)


@lru_cache
def run_now() -> Update:
    """Ask for a run of the periodic job `periodic_id`. An earlier request keeps its time."""
    return _switch(run_now_at=func.coalesce(PeriodicRun.run_now_at, NOW))


def _switch(**values: Any) -> Update:
    return (
        sa_update(PeriodicRun)
        .where(_NAMED)
        .values(updated_at=NOW, **values)
        .returning(PeriodicRun.id)
    )


@lru_cache
def ran_now() -> Update:
    """Record that the periodic jobs in bind `ids` have run by request."""
    return (
        sa_update(PeriodicRun)
        .where(PeriodicRun.id == func.any(bindparam("ids", type_=ARRAY(Text))))
        .values(run_now_at=None, last_run_at=NOW, updated_at=NOW)
        .returning(PeriodicRun.id)
    )


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

"""The statements of `verbs.samples`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    Double,
    Insert,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Action, Job, Sample
from riverrun.queries.expressions import NOW, state_literal

STEPS = (10, 60, 900, 3_600, 43_200)
"""The lengths of samples in seconds. Those of each length are sums of those of the length before.

The longer ones are the points of charts. Summing them up for each chart would take 100 ms.
"""

FINE_S = STEPS[0]

BOUNDS_S: tuple[float, ...] = tuple(0.001 * 2**power for power in range(23))
"""The bounds of a histogram's classes, in seconds: from 1 ms to 70 min, each twice the last one."""

SERIES_MAX = 50
"""Maximum number of series of one time. The rest is one series for each state, without a name."""

INTEGER_MAX = 2**31 - 1

_ORIGIN = literal_column("timestamptz '2000-01-01 00:00:00+00'", Timestamp)


@lru_cache
def marks() -> Select[Any]:
    """Read the time, and the last sample of each length. Index: riverrun_sample_pkey."""
    last: list[Any] = [
        select(func.max(Sample.at)).where(Sample.step_s == step_s).scalar_subquery()
        for step_s in STEPS
    ]
    columns: list[Any] = [NOW, *last]
    return select(*columns)


@lru_cache
def clock() -> Select[Any]:
    """Read the time, and whether there is a table of samples in schema `schema_name`."""
    # concat() ignores the null that results from a null schema.
    place = func.quote_ident(bindparam("schema_name", type_=Text)) + "."
    there = func.to_regclass(func.concat(place, Action.__tablename__)).is_not(None)
    columns: list[Any] = [NOW.label("now"), there.label("there")]
    return select(*columns)


@lru_cache
def no_jit() -> Select[Any]:
    """Keep PostgreSQL from compiling this transaction's statements, which would take longer."""
    return select(func.set_config("jit", "off", True))


@lru_cache
def count_final() -> Insert:
    """Sample the jobs that were finalized from bind `since` to before bind `until`.

    The wait and the run of a job count if it was completed or discarded by an attempt. Index:
    river_job_state_and_finalized_at_index.
    """
    since, until = (bindparam(name, type_=Timestamp) for name in ("since", "until"))
    parts = [
        select(
            _bin(FINE_S, Job.finalized_at).label("at"),
            Job.queue,
            Job.kind,
            literal_column(f"'{state.value}'", Text).label("state"),
            Job.scheduled_at,
            Job.attempted_at,
            Job.finalized_at,
        ).where(
            Job.state == state_literal(state),
            Job.finalized_at.is_not(None),  # the condition of the partial index
            Job.finalized_at >= since,
            Job.finalized_at < until,
        )
        for state in sorted(FINAL_STATES)
    ]
    job = union_all(*parts).subquery("job").c
    timed = and_(
        job.state != JobState.cancelled.value,
        job.scheduled_at > literal_column("timestamptz '-infinity'", Timestamp),
        job.attempted_at >= job.scheduled_at,
        job.finalized_at >= job.attempted_at,
    )
    wait_s = case((timed, _seconds(job.attempted_at - job.scheduled_at)))
    run_s = case((timed, _seconds(job.finalized_at - job.attempted_at)))
    bounds: Any = literal_column(f"'{{{','.join(map(str, BOUNDS_S))}}}'::float8[]")
    key = [job.at, job.queue, job.kind, job.state]
    classes = [
        func.width_bucket(wait_s, bounds).label("wait"),
        func.width_bucket(run_s, bounds).label("run"),
    ]
    # Group by the classes first, because there are far fewer of them than jobs.
    classed = (
        select(
            *(*key, *classes),
            func.count().label("count"),
            func.sum(wait_s).label("wait_s"),
            func.sum(run_s).label("run_s"),
        )
        .group_by(*key, *classes)
        .subquery("classed")
    ).c
    counts = {
        name: _histogram(
            f"coalesce(sum(classed.count) FILTER (WHERE classed.{name} = {{place}}), 0)"
        )
        for name in ("wait", "run")
    }
    lengths = {name: func.max(classed[name]) + 1 for name in counts}
    step_s = literal_column(str(FINE_S), Integer)
    return _insert(step_s, classed, func.sum(classed["count"]), counts, lengths)


@lru_cache
def sum_up() -> Insert:
    """Sum samples of bind `from_s` seconds, from bind `since` to before `until`, up to `step_s`.

    Index: riverrun_sample_pkey.
    """
    since, until = (bindparam(name, type_=Timestamp) for name in ("since", "until"))
    step_s, from_s = (bindparam(name, type_=Integer) for name in ("step_s", "from_s"))
    finer = (
        select(
            func.date_bin(_seconds_long(step_s), Sample.at, _ORIGIN).label("at"),
            *(getattr(Sample, name) for name in ("queue", "kind", "state", "count")),
            Sample.wait_s,
            Sample.run_s,
            Sample.wait_counts.label("wait"),
            Sample.run_counts.label("run"),
        )
        .where(Sample.step_s == from_s, Sample.at >= since, Sample.at < until)
        .subquery("finer")
    )
    counts = {name: _sums(f"finer.{name}") for name in ("wait", "run")}
    lengths = {name: func.max(func.cardinality(finer.c[name])) for name in counts}
    return _insert(cast(step_s, Integer), finer.c, func.sum(finer.c["count"]), counts, lengths)


def _insert(
    step_s: Any, rows: Any, count: Any, counts: dict[str, Any], lengths: dict[str, Any]
) -> Insert:
    """Return an insert of the most frequent series of each time, and of the rest without names."""
    key = (rows.at, rows.queue, rows.kind, rows.state)
    named = and_(rows.queue != "", rows.kind != "")
    place = func.row_number().over(
        partition_by=rows.at, order_by=[named.desc(), count.desc(), *key[1:]]
    )
    series = (
        select(
            *key,
            count.label("count"),
            func.coalesce(func.sum(rows.wait_s), 0.0).label("wait_s"),
            func.coalesce(func.sum(rows.run_s), 0.0).label("run_s"),
            *(counts[name].label(f"{name}_counts") for name in counts),
            *(func.coalesce(lengths[name], 0).label(f"{name}_length") for name in counts),
            and_(place <= SERIES_MAX, named).label("kept"),
        )
        .group_by(*key)
        .subquery("series")
    ).c
    queue, kind = (
        case((series.kept, name), else_=literal_column("''", Text))
        for name in (series.queue, series.kind)
    )
    trimmed = [
        func.trim_array(
            cast(_sums(f"series.{name}_counts", most=INTEGER_MAX), ARRAY(Integer)),
            len(BOUNDS_S) + 1 - cast(func.max(series[f"{name}_length"]), Integer),
        )
        for name in counts
    ]
    source = select(
        step_s,
        series.at,
        queue,
        kind,
        series.state,
        cast(func.sum(series["count"]), BigInteger),
        func.sum(series.wait_s),
        func.sum(series.run_s),
        *trimmed,
    ).group_by(series.at, queue, kind, series.state)
    names = [column.name for column in Sample.__table__.columns]
    return (
        insert(Sample)
        .from_select(names, source)
        .on_conflict_do_nothing()
        .execution_options(dml_strategy="raw")
    )


@lru_cache
def clean() -> Delete:
    """Delete samples older than binds `before_10` and so on, up to bind `limit` of each length.

    Index: riverrun_sample_pkey, in its order; by their ctid the rows need not be found again.
    """
    place: ColumnElement[Any] = literal_column("ctid")
    limit = bindparam("limit", type_=Integer)
    old = [
        select(place.label("place"))
        .where(Sample.step_s == step_s, Sample.at < bindparam(f"before_{step_s}", type_=Timestamp))
        .order_by(Sample.at)
        .limit(limit)
        .subquery()
        for step_s in STEPS
    ]
    found = union_all(*(select(part.c.place) for part in old))
    return delete(Sample).where(place == func.any(func.array(found.scalar_subquery())))


@lru_cache
def list_samples(by: str, step_s: int, finer_s: int | None) -> Select[Any]:
    """Sum up the samples from bind `since` on, in points of `point_s`, by queue, kind or state.

    Samples of `finer_s` make up for those that are not summed up yet. Binds `of_queue`, `of_kind`
    and `of_state` choose among them; null chooses all. Index: riverrun_sample_pkey.
    """
    since = bindparam("since", type_=Timestamp)
    source = and_(Sample.step_s == step_s, Sample.at >= since)
    if finer_s is not None:
        last = select(func.max(Sample.at)).where(Sample.step_s == step_s).scalar_subquery()
        later = func.coalesce(last + _interval(step_s), since)
        finer = and_(Sample.step_s == finer_s, Sample.at >= func.greatest(since, later))
        source = or_(source, finer)
    width = _seconds_long(bindparam("point_s"))
    at, name = func.date_bin(width, Sample.at, _ORIGIN), getattr(Sample, by)
    chosen = [
        or_(
            cast(bindparam(f"of_{key}"), Text).is_(None),
            getattr(Sample, key) == bindparam(f"of_{key}"),
        )
        for key in ("queue", "kind", "state")
    ]
    count: Any = func.sum(Sample.count)
    discarded = count.filter(Sample.state == JobState.discarded.value)
    return (
        select(
            at.label("at"),
            name.label("name"),
            cast(count, BigInteger).label("count"),
            cast(func.coalesce(discarded, 0), BigInteger).label("discarded"),
            func.sum(Sample.wait_s).label("wait_s"),
            func.sum(Sample.run_s).label("run_s"),
            # As texts, which the driver reads ten times as fast as arrays.
            func.array_to_string(_sums("wait_counts"), " ").label("wait_counts"),
            func.array_to_string(_sums("run_counts"), " ").label("run_counts"),
        )
        .where(source, *chosen)
        .group_by(at, name)
        .order_by(at, name)
    )


def _sums(counts: str, *, most: int | None = None) -> Any:
    """Return the sum of each class of the histograms in a column, which may be shorter."""
    of_class = f"coalesce(sum({counts}[{{place}} + 1]), 0)"
    return _histogram(of_class if most is None else f"least({of_class}, {most})")


def _histogram(of_class: str) -> Any:
    """Return an array with the SQL `of_class` for every class, whose number is `{place}`.

    The SQL is text, because SQLAlchemy would take 0.1 s to compile expressions when a client
    becomes the leader.
    """
    texts = [of_class.format(place=place) for place in range(len(BOUNDS_S) + 1)]
    return literal_column(f"ARRAY[{', '.join(texts)}]::bigint[]", ARRAY(BigInteger))


def _bin(step_s: int, time: Any) -> Any:
    return func.date_bin(_interval(step_s), time, _ORIGIN)


def _interval(step_s: int) -> Any:
    return literal_column(f"interval '{step_s} seconds'")


def _seconds_long(number: Any) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, cast(number, Double))


def _seconds(interval: Any) -> Any:
    # Unlike extract(), whose result is numeric, this is a number that is fast to calculate with.
    return func.date_part("epoch", interval, type_=Double)

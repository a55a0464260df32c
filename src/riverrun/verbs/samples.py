"""Samples: how many jobs were finalized, by time, queue, kind and state, for charts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import attrs
from sqlalchemy import CursorResult

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InvalidOption
from riverrun.jobs.states import JobState
from riverrun.queries import samples as queries
from riverrun.queries.samples import BOUNDS_S, FINE_S, STEPS

LAG_S = 3.0
"""Seconds from the end of a sample's time until it is taken, as outcomes are written in batches."""

GAP_S = 600.0
"""Seconds that a new leader makes up for, if no client took samples in that time."""

CHUNK_S = 60.0
"""Maximum seconds that one turn samples."""

_HOUR_S, _DAY_S = 3_600.0, 86_400.0

KEPT_S = dict(
    zip(STEPS, (_HOUR_S + 120, 49 * _HOUR_S, 49 * _HOUR_S, 90 * _DAY_S, 91 * _DAY_S), strict=True)
)
"""Seconds for which samples are kept, by their length."""

NAMES_MAX = 20
"""Maximum number of series of a chart; the jobs of all others are one more."""

_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)


class SampleSpan(StrEnum):
    """The time that a chart shows."""

    quarter = "15m"
    hour = "1h"
    days = "2d"
    quarter_year = "90d"


class SampleKey(StrEnum):
    """What a chart has a series for."""

    queue = "queue"
    kind = "kind"
    state = "state"


# The seconds of each span, of a point in it, of the samples, and of those not summed up yet.
_SPANS: dict[SampleSpan, tuple[int, int, int, int | None]] = {
    SampleSpan.quarter: (900, 10, 10, None),
    SampleSpan.hour: (3_600, 30, 10, None),
    SampleSpan.days: (172_800, 900, 900, 60),
    SampleSpan.quarter_year: (90 * 86_400, 43_200, 43_200, 3_600),
}


@attrs.frozen(kw_only=True)
class SamplePoint:
    """The jobs that were finalized in one period of a chart.

    The waits and runs are those of jobs that an attempt completed or discarded; None if there are
    none. The 95th percentiles are estimated from a histogram whose classes double, from 1 ms to
    70 min.

    Attributes:
        at: When the period began. It is as long as the `step_s` of its Samples.
        count: How many jobs were finalized.
        discarded: How many of them were discarded.
        wait_s: The mean of the seconds from when a job was due to its last attempt.
        wait_p95_s: The 95th percentile of the same.
        run_s: The mean of the seconds that the last attempt took.
        run_p95_s: The 95th percentile of the same.
    """

    at: datetime
    count: int
    discarded: int
    wait_s: float | None
    wait_p95_s: float | None
    run_s: float | None
    run_p95_s: float | None


@attrs.frozen(kw_only=True)
class SampleSeries:
    """The points of one queue, kind or state.

    Attributes:
        name: The queue, kind or state; None for all that are not listed by their name.
        count: How many jobs all points have.
        points: The points in order of time, without those that have no job.
    """

    name: str | None
    count: int
    points: Sequence[SamplePoint]


@attrs.frozen(kw_only=True)
class Samples:
    """The data of a chart.

    Attributes:
        by: What there is a series for.
        span: The time that it shows.
        step_s: Seconds from one point to the next.
        from_at: The time of the first point that there may be.
        until_at: The end of the last point, after which nothing is shown.
        series: At most 21 series, those with most jobs first, and the one without a name last.
        kept: Whether the database has samples; False without version 3 of riverrun's line.
    """

    by: SampleKey
    span: SampleSpan
    step_s: int
    from_at: datetime
    until_at: datetime
    series: Sequence[SampleSeries]
    kept: bool


@attrs.frozen(kw_only=True)
class Sampled:
    """The result of one turn of the sampler.

    Attributes:
        until: The end of the time that is sampled.
        deleted: How many old samples were deleted.
        more: Whether there is more to sample or to delete now.
    """

    until: datetime
    deleted: int
    more: bool


@tried_again
def list_samples(
    tx: Tx,
    *,
    by: SampleKey | str = SampleKey.queue,
    span: SampleSpan | str = SampleSpan.hour,
    queue: str | None = None,
    kind: str | None = None,
    state: JobState | str | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> Samples:
    """Return how many jobs were finalized over time, how long they waited and how long they ran.

    The leader of riverrun takes samples. The newest is 3 to 13 s old, with "2d" up to a minute and
    with "90d" up to an hour.

    Args:
        tx: The transaction, as for `insert`.
        by: What there is a series for: "queue", "kind" or "state".
        span: "15m", "1h", "2d" or "90d".
        queue: Only jobs of this queue. Default: of all.
        kind: Only jobs of this kind. Default: of all.
        state: Only jobs that reached this state. Default: all final ones.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        InvalidOption: If a value is out of range.
    """
    key, shown = _choice("by", by, SampleKey), _choice("span", span, SampleSpan)
    of = {"of_queue": _name("queue", queue), "of_kind": _name("kind", kind), "of_state": state}
    if state is not None:
        of["of_state"] = _choice("state", state, JobState).value
    span_s, point_s, step_s, finer_s = _SPANS[shown]
    with joined(tx, schema) as transaction:
        clock = transaction.execute(queries.clock(), {"schema_name": schema, "now": now}).one()
        until_at = floor(clock.now, point_s) + timedelta(seconds=point_s)
        from_at = until_at - timedelta(seconds=span_s)
        rows: Sequence[Any] = []
        if clock.there:
            params = {**of, "since": from_at, "point_s": point_s}
            rows = transaction.execute(
                queries.list_samples(key.value, step_s, finer_s), params
            ).all()
    return Samples(
        by=key,
        span=shown,
        step_s=point_s,
        from_at=from_at,
        until_at=until_at,
        series=_series(rows),
        kept=clock.there,
    )


def sample(
    transaction: Transaction, *, after: datetime | None, limit: int, now: datetime | None = None
) -> Sampled:
    """Take the samples that are due, sum them up, and delete old ones.

    A sample that is there already stays as it is. So it does no harm if two leaders do this.

    Args:
        transaction: The transaction.
        after: The `until` of the last turn, before which nothing is due; None if it is not known.
        limit: Maximum number of samples of each length to delete.
        now: For tests: used as the database's time, aware.
    """
    transaction.execute(queries.no_jit(), {})
    marks: Sequence[Any] = transaction.execute(queries.marks(), {"now": now}).one()
    moment, *last = marks
    goal = floor(moment - timedelta(seconds=LAG_S), FINE_S)
    since = _after(last[0], FINE_S, floor(moment - timedelta(seconds=GAP_S), FINE_S))
    since = since if after is None else max(since, after)
    until = min(goal, since + timedelta(seconds=CHUNK_S))
    if since < until:
        transaction.execute(queries.count_final(), {"since": since, "until": until})
    for from_s, step_s, end in zip(STEPS, STEPS[1:], last[1:], strict=False):
        oldest = floor(moment - timedelta(seconds=KEPT_S[from_s]), step_s)
        begin, whole = _after(end, step_s, oldest), floor(max(since, until), step_s)
        if begin < whole:
            params = {"since": begin, "until": whole, "step_s": step_s, "from_s": from_s}
            transaction.execute(queries.sum_up(), params)
    before = {f"before_{step_s}": moment - timedelta(seconds=KEPT_S[step_s]) for step_s in STEPS}
    done = transaction.execute(queries.clean(), {**before, "limit": limit})
    assert isinstance(done, CursorResult)  # noqa: S101  every DELETE returns one
    return Sampled(until=until, deleted=done.rowcount, more=until < goal or done.rowcount >= limit)


def floor(moment: datetime, step_s: int) -> datetime:
    """Return the start of the `step_s` seconds, counted from the year 2000, that contain `moment`.

    So points and samples begin at whole minutes, hours and half days in UTC.
    """
    step = timedelta(seconds=step_s)
    return _ORIGIN + (moment - _ORIGIN) // step * step


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Return the value, in seconds, below which `share` of a histogram's values are, estimated.

    It assumes that the values of a class are spread evenly. Values above the last bound count as
    that bound.
    """
    left: float = sum(counts) * share
    if not left:
        return None
    low = 0.0
    for count, high in zip(counts, BOUNDS_S, strict=False):
        if count >= left:
            return low + (high - low) * (left / count)
        left -= count
        low = high
    return low


def _after(last: datetime | None, step_s: int, oldest: datetime) -> datetime:
    return oldest if last is None else max(oldest, last + timedelta(seconds=step_s))


def _series(rows: Sequence[Any]) -> list[SampleSeries]:
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.name] = totals.get(row.name, 0) + row.count
    ranked = sorted((name for name in totals if name), key=lambda name: (-totals[name], name))
    kept = set(ranked[:NAMES_MAX])
    points: dict[str, dict[datetime, list[Any]]] = {}
    for row in rows:
        name = row.name if row.name in kept else ""
        points.setdefault(name, {}).setdefault(row.at, []).append(row)
    order = [*ranked[:NAMES_MAX], *([""] if "" in points else [])]
    return [
        SampleSeries(
            name=name or None,
            count=sum(row.count for same in points[name].values() for row in same),
            points=[_point(at, same) for at, same in points[name].items()],
        )
        for name in order
    ]


def _point(at: datetime, rows: Sequence[Any]) -> SamplePoint:
    waits, runs = (
        _histogram([getattr(row, name) for row in rows]) for name in ("wait_counts", "run_counts")
    )
    timed = sum(runs)
    return SamplePoint(
        at=at,
        count=sum(row.count for row in rows),
        discarded=sum(row.discarded for row in rows),
        wait_s=sum(row.wait_s for row in rows) / timed if timed else None,
        wait_p95_s=percentile(waits, 0.95),
        run_s=sum(row.run_s for row in rows) / timed if timed else None,
        run_p95_s=percentile(runs, 0.95),
    )


def _histogram(texts: Sequence[str]) -> list[int]:
    first, *others = (list(map(int, text.split())) for text in texts)
    return [sum(column) for column in zip(first, *others, strict=True)] if others else first


def _choice(name: str, value: object, choices: Any) -> Any:
    try:
        return choices(value)
    except ValueError:
        raise InvalidOption(name, value, f"one of {', '.join(choices)}") from None


def _name(name: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or "\x00" in value):
        raise InvalidOption(name, value, "a text")
    return value

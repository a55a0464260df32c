"""How many jobs are finalized over time: data and charts, from the leader's samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from riverrun.jobs.states import FINAL_STATES
from riverrun.verbs.samples import (
    SampleKey,
    Samples,
    SampleSeries,
    SampleSpan,
    list_samples,
)
from riverrun.web.charts import Chart, Series, lines, stacked
from riverrun.web.context import Context
from riverrun.web.errors import BadRequest
from riverrun.web.request import Request

SERIES_MAX = 6
"""Maximum number of series of a chart that have a colour of their own."""

TTL_S = 5.0


@attrs.frozen(kw_only=True)
class Choice:
    """What a user wants to see.

    Attributes:
        span: The time.
        by: What there is a series for.
    """

    span: SampleSpan
    by: SampleKey


def choice_of(request: Request) -> Choice:
    """Return what the query chooses.

    Raises:
        BadRequest: If there is no such choice.
    """
    try:
        return Choice(
            span=SampleSpan(request.one("span") or SampleSpan.quarter),
            by=SampleKey(request.one("by") or SampleKey.state),
        )
    except ValueError as error:
        raise BadRequest("filter", str(error)) from None


def read_history(
    choice: Choice, context: Context, *, queue: str | None = None, kind: str | None = None
) -> Samples:
    """Return the samples of a choice, of one queue or one kind if it is given."""
    options = {"by": choice.by, "span": choice.span, "queue": queue, "kind": kind}
    found: Samples = context.read.shared(list_samples, ttl_s=TTL_S, **options)
    return found


def per_minute(series: SampleSeries, samples: Samples, *, window_s: float = 300.0) -> float:
    """Return how many jobs of a series were finalized per minute recently."""
    recent = sum(
        point.count
        for point in series.points
        if (samples.until_at - point.at).total_seconds() <= window_s
    )
    return recent * 60.0 / window_s


def charts(samples: Samples, words: Mapping[str, str]) -> dict[str, Chart]:
    """Return the charts of samples: of throughput, of waits and of run times."""
    count = max(int((samples.until_at - samples.from_at).total_seconds() / samples.step_s), 1)
    shown = [member for member in samples.series if member.name is not None][:SERIES_MAX]
    rest = [member for member in samples.series if member not in shown]

    def values(group: Sequence[SampleSeries], name: str) -> list[float | None]:
        found: list[float | None] = [None] * count
        for member in group:
            for point in member.points:
                place = round((point.at - samples.from_at).total_seconds() / samples.step_s)
                value = getattr(point, name)
                if 0 <= place < count and value is not None:
                    found[place] = value + (found[place] or 0)
        return found

    def series(name: str, *, with_rest: bool) -> list[Series]:
        found = [
            Series(name=_name(member, words), css=_css(member, at), values=values([member], name))
            for at, member in enumerate(shown)
        ]
        if rest and with_rest:
            found.append(Series(name=words["other"], css="c-other", values=values(rest, name)))
        return found or [Series(name=words["none_finished"], css="c-other", values=[None] * count)]

    span: dict[str, Any] = {"first": samples.from_at, "last": samples.until_at}
    return {
        "finished": stacked(series("count", with_rest=True), label=words["throughput"], **span),
        "wait": lines(series("wait_p95_s", with_rest=False), label=words["wait_chart"], **span),
        "run": lines(series("run_p95_s", with_rest=False), label=words["run_chart"], **span),
    }


def links(request: Request, choice: Choice, *, by: bool = True) -> dict[str, Any]:
    """Return the links by which a user chooses, each with its name and whether it is chosen."""
    spans = [(span, request.again(span=span), span is choice.span) for span in SampleSpan]
    keys = [(key, request.again(by=key), key is choice.by) for key in SampleKey]
    return {"spans": spans, "keys": keys if by else []}


def _name(series: SampleSeries, words: Mapping[str, str]) -> str:
    name = str(series.name)
    return words[name] if name in FINAL_STATES else name


def _css(series: SampleSeries, place: int) -> str:
    return f"c-{series.name}" if series.name in FINAL_STATES else f"c-{place}"

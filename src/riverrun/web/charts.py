"""Charts as SVG, made on the server: they need no script, and print."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from markupsafe import Markup

WIDTH, HEIGHT = 760, 150
SPARK_WIDTH, SPARK_HEIGHT = 120, 22
BAR_WIDTH = 240

_LEFT, _BOTTOM, _TOP = 40, 18, 14

_NO_CLASS = Markup()


@attrs.frozen(kw_only=True)
class Series:
    """Values over time.

    Attributes:
        name: What they are.
        css: The class of their bars or their line.
        values: The values, the earliest first; None where there is none.
    """

    name: str
    css: str
    values: Sequence[float | None]


@attrs.frozen(kw_only=True)
class Chart:
    """A chart, and what a table beside it needs.

    Attributes:
        svg: The picture.
        series: What it shows.
        times: When each of the values begins.
    """

    svg: Markup
    series: Sequence[Series]
    times: Sequence[datetime]

    def rows(self) -> list[tuple[datetime, list[float | None]]]:
        """Return the rows of the table, the latest first, without those that have nothing."""
        found = [
            (at, [member.values[place] for member in self.series])
            for place, at in enumerate(self.times)
        ]
        return [row for row in reversed(found) if any(row[1])]


def stacked(series: Sequence[Series], *, label: str, first: datetime, last: datetime) -> Chart:
    """Return bars over time, of several series on each other.

    Args:
        series: The series, the lowest first, with equally many values.
        label: What the chart shows.
        first: When it begins.
        last: When it ends.
    """
    count = len(series[0].values)
    tops = [sum(member.values[at] or 0 for member in series) for at in range(count)]
    most = _nice(max(tops, default=0))
    step = (WIDTH - _LEFT) / count
    parts = _frame(most, first, last)
    classes = [Markup(' class="{}"').format(member.css) for member in series]
    for place in range(count):
        base = 0.0
        for member, css in zip(series, classes, strict=True):
            value = member.values[place] or 0
            if not value:
                continue
            tall = max((HEIGHT - _TOP - _BOTTOM) * value / most, 1.0)
            x, y = _LEFT + place * step, HEIGHT - _BOTTOM - base - tall
            parts.append(_rect(x, y, max(step - 1, 1), tall, css))
            base += tall
    return Chart(svg=_svg(parts, label), series=series, times=_times(first, last, count))


def lines(series: Sequence[Series], *, label: str, first: datetime, last: datetime) -> Chart:
    """Return lines over time. Where a value is missing, its line is broken.

    Args:
        series: The series, with equally many values.
        label: What the chart shows.
        first: When it begins.
        last: When it ends.
    """
    count = len(series[0].values)
    most = _nice(max((value or 0 for member in series for value in member.values), default=0))
    step = (WIDTH - _LEFT) / count
    parts = _frame(most, first, last)
    for member in series:
        path, pen = [], "M"
        for place, value in enumerate(member.values):
            if value is None:
                pen = "M"
                continue
            y = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / most
            path.append(f"{pen}{_LEFT + (place + 0.5) * step:.1f} {y:.1f}h.1")
            pen = "L"
        parts.append(Markup('<path class="l {}" d="{}"/>').format(member.css, "".join(path)))
    return Chart(svg=_svg(parts, label), series=series, times=_times(first, last, count))


def spark(values: Sequence[float], label: str) -> Markup:
    """Return small bars for values over time.

    Args:
        values: The values, the earliest first.
        label: What they are, for those who do not see it.
    """
    width, height = SPARK_WIDTH, SPARK_HEIGHT
    most = max(values, default=0) or 1
    step = width / max(len(values), 1)
    bars = [
        _rect(at * step, height - tall, max(step - 1, 0.5), tall)
        for at, value in enumerate(values)
        if (tall := max(height * value / most, 1.5 if value else 0.0))
    ]
    return Markup(
        '<svg class="spark" role="img" aria-label="{}" width="{}" height="{}" '
        'viewBox="0 0 {} {}">{}</svg>'
    ).format(label, width, height, width, height, Markup("").join(bars))


def bar(value: float, most: float) -> Markup:
    """Return a horizontal bar, to stand before its number."""
    long = max(BAR_WIDTH * value / most, 1.0) if most else 0.0
    return Markup(
        '<svg class="bar1" aria-hidden="true" width="{}" height="10"><rect width="{}" height="10" '
        'rx="2"/></svg>'
    ).format(f"{long:.0f}", f"{long:.0f}")


def _rect(x: float, y: float, width: float, height: float, css: Markup = _NO_CLASS) -> Markup:
    # Not Markup.format, which takes 30 times as long: a page has hundreds of these.
    numbers = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return Markup(f"<rect{css} {numbers}/>")  # noqa: S704  numbers and an escaped class


def _frame(most: float, first: datetime, last: datetime) -> list[Markup]:
    """Return the lines and the texts behind a chart."""
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
        parts.append(
            Markup(
                '<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}" class="y">{}</text>'
            ).format(_LEFT, f"{y:.1f}", WIDTH, _LEFT - 6, f"{y + 3.5:.1f}", _short(most * share))
        )
    far = (last - first) > timedelta(days=1)
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        at = first + (last - first) * share
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                f"{_LEFT + share * (WIDTH - _LEFT):.0f}",
                HEIGHT - 4,
                anchor,
                (f"{at:%d %b %H:%M}" if far else f"{at:%H:%M}") + (" UTC" if share == 1 else ""),
            )
        )
    return parts


def _svg(parts: Sequence[Markup], label: str) -> Markup:
    return Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>'
    ).format(label, WIDTH, HEIGHT, Markup("").join(parts))


def _times(first: datetime, last: datetime, count: int) -> list[datetime]:
    step = (last - first) / count
    return [first + step * place for place in range(count)]


def _nice(most: float) -> float:
    """Return a round number that is not below `most`; 1 if that is 0."""
    if most <= 0:
        return 1.0
    size = 0.001
    while size * 10 < most:
        size *= 10
    for factor in (1, 2, 4, 6, 8, 10):
        if most <= size * factor:
            return size * factor
    return most


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1_000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.3g}"

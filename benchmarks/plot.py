"""Small SVG plots, made without a library: bars with median and spread, and lines over time.

Each plot has its own background, and follows the reader's dark mode.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from html import escape

import attrs

WIDTH = 760
HEADER = 34
ROW = 26
PLOT_HEIGHT = 240
MARGIN = 16
LETTER = 6.7
"""Approximate width of a letter in pixels; there is no font here to measure."""
LINES = 6

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "faint": "#d5d9de",
    "bar": "#9aa4b0",
    "ours": "#0969da",
    "lines": ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#6e7781"),
}
DARK = {
    "paper": "#15191f",
    "ink": "#e6edf3",
    "faint": "#3a424c",
    "bar": "#6b7684",
    "ours": "#58a6ff",
    "lines": ("#58a6ff", "#f0883e", "#56d364", "#bc8cff", "#f778ba", "#8b949e"),
}


def bars(
    title: str,
    samples: Mapping[str, Sequence[float]],
    *,
    unit: str,
    ours: Collection[str] = (),
) -> str:
    """Return an SVG with a bar per side: its length is the median, its line the spread.

    Args:
        title: The title.
        samples: The samples of each side, by its name. A side without samples is left out.
        unit: The unit of the samples.
        ours: The sides to highlight.
    """
    samples = {side: values for side, values in samples.items() if values}
    # Cut lines at twice the longest bar, or they would make the bars too short to read.
    longest = max(statistics.median(values) for values in samples.values())
    most = min(max(max(values) for values in samples.values()), 2 * longest) or 1.0
    left = MARGIN + 10 + LETTER * max(len(side) for side in samples)
    right = MARGIN + 10 + LETTER * max(len(_spread(values, unit)) for values in samples.values())
    scale = (WIDTH - left - right) / most
    drawn = []
    for index, (side, values) in enumerate(samples.items()):
        y = HEADER + ROW * index
        end = left + statistics.median(values) * scale
        low, high = (left + min(value, most) * scale for value in (min(values), max(values)))
        kind = "ours" if side in ours else "bar"
        width = max(end - left, 0.5)
        text = _spread(values, unit)
        drawn += [
            f'<text class="end" x="{left - 8:.1f}" y="{y + 16}">{escape(side)}</text>',
            f'<rect class="{kind}" x="{left:.1f}" y="{y + 3}" width="{width:.1f}" height="18"/>',
            _path(
                "ink", f"M{low:.1f} {y + 12}H{high:.1f}M{low:.1f} {y + 8}v8M{high:.1f} {y + 8}v8"
            ),
            f'<text x="{max(end, high) + 8:.1f}" y="{y + 16}">{escape(text)}</text>',
        ]
    return _drawing(title, HEADER + ROW * len(samples) + MARGIN, drawn)


@attrs.frozen
class Mark:
    """An event, drawn as a vertical line.

    Attributes:
        at: Its time, on the horizontal axis.
        label: Its label.
    """

    at: float
    label: str = ""


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    unit: str,
    along: str = "s",
    marks: Sequence[Mark] = (),
) -> str:
    """Return an SVG with a line per series, over time. The vertical axis begins at zero.

    Args:
        title: The title.
        series: Points (time, value) in order of time, by the name of the series. An empty series is
            left out.
        unit: The unit of the values.
        along: The unit of time.
        marks: Events to mark.
    """
    series = {name: points for name, points in series.items() if points}
    times = [at for points in series.values() for at, _ in points] + [mark.at for mark in marks]
    first, last = min(times), max(times)
    ticks = _ticks(max(value for points in series.values() for _, value in points))
    left = MARGIN + 10 + LETTER * max(len(number(tick)) for tick in ticks)
    top, bottom = HEADER + 26, HEADER + 26 + PLOT_HEIGHT
    across = (WIDTH - MARGIN - left) / ((last - first) or 1.0)
    up = PLOT_HEIGHT / ticks[-1]

    def place(at: float, value: float) -> str:
        return f"{left + (at - first) * across:.1f},{bottom - value * up:.1f}"

    drawn = []
    for tick in ticks:
        y = bottom - tick * up
        drawn += [
            _path("faint", f"M{left:.1f} {y:.1f}H{WIDTH - MARGIN}"),
            f'<text class="end" x="{left - 6:.1f}" y="{y + 4:.1f}">{number(tick)}</text>',
        ]
    for tick in (first, (first + last) / 2, last):
        anchor = "end" if tick == last else "middle"
        x = left + (tick - first) * across
        text = f"{number(tick)} {along}"
        drawn.append(f'<text class="{anchor}" x="{x:.1f}" y="{bottom + 18}">{escape(text)}</text>')
    for mark in marks:
        x = left + (mark.at - first) * across
        drawn += [
            _path("ink dashed", f"M{x:.1f} {top}V{bottom}"),
            f'<text x="{x + 4:.1f}" y="{top + 10}">{escape(mark.label)}</text>',
        ]
    x = left
    for index, (name, points) in enumerate(series.items()):
        line = f"line{index % LINES}"
        drawn += [
            _path(line, "M" + " ".join(place(at, value) for at, value in points)),
            _path(line, f"M{x:.1f} {HEADER + 6}h18"),
            f'<text x="{x + 24:.1f}" y="{HEADER + 10}">{escape(name)}</text>',
        ]
        x += 44 + LETTER * len(name)
    return _drawing(f"{title} ({unit})", bottom + 30, drawn)


def _spread(samples: Sequence[float], unit: str) -> str:
    median = f"{number(statistics.median(samples))} {unit}"
    if len(samples) == 1:
        return median
    return f"{median} ({number(min(samples))} to {number(max(samples))})"


def number(value: float) -> str:
    """Return `value` with three significant digits, and from thousands on as a whole number."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _ticks(most: float) -> list[float]:
    """Return three to six round values from zero; the last is at least `most`."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= 5)
    return [step * index for index in range(math.ceil(most / step - 1e-9) + 1)]


def _path(kind: str, path: str) -> str:
    return f'<path class="{kind}" d="{path}"/>'


def _style() -> str:
    # Use classes and not CSS variables, which some SVG viewers do not support.
    return (
        'text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; } '
        "text.title { font-weight: 600; font-size: 14px; } "
        ".end { text-anchor: end; } .middle { text-anchor: middle; } "
        "path { fill: none; } .dashed { stroke-dasharray: 3 3; } "
        f"{_colours(LIGHT)} @media (prefers-color-scheme: dark) {{ {_colours(DARK)} }}"
    )


def _colours(theme: Mapping[str, str | Sequence[str]]) -> str:
    """Return a theme's colours as CSS."""
    rules = [
        f".paper {{ fill: {theme['paper']}; stroke: {theme['faint']}; }}",
        f"text {{ fill: {theme['ink']}; }} path.ink {{ stroke: {theme['ink']}; }}",
        f".bar {{ fill: {theme['bar']}; }} .ours {{ fill: {theme['ours']}; }}",
        f".faint {{ stroke: {theme['faint']}; }}",
    ]
    for index, colour in enumerate(theme["lines"]):
        rules.append(f".line{index} {{ stroke: {colour}; stroke-width: 1.8; }}")
    return " ".join(rules)


def _drawing(title: str, height: float, drawn: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_style()}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{height:.0f}" rx="6"/>',
            f'<text class="title" x="{MARGIN}" y="22">{escape(title)}</text>',
            *drawn,
            "</svg>\n",
        ]
    )

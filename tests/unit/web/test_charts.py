"""Charts: any values make a picture that can be drawn."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.web.charts import HEIGHT, WIDTH, Series, bar, lines, spark, stacked

FIRST = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SPAN = {"first": FIRST, "last": FIRST + timedelta(minutes=15)}
VALUES = st.lists(st.one_of(st.none(), st.floats(0, 1e12)), min_size=1, max_size=40)


@given(values=VALUES)
def test_stays_within_its_frame(values: list[float | None]) -> None:
    """No bar and no line leaves the picture, whatever the values are."""
    series = [
        Series(name="a", css="c-0", values=values),
        Series(name="b", css="c-1", values=values[::-1]),
    ]
    for chart in (stacked(series, label="x", **SPAN), lines(series, label="x", **SPAN)):
        assert "nan" not in chart.svg
        for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", chart.svg):
            assert -1 <= float(x) <= WIDTH + 1
            assert -1 <= float(y) <= HEIGHT + 1
        for y, tall in re.findall(
            r'<rect class="[^"]*" x="[^"]*" y="([^"]*)" width="[^"]*" height="([^"]*)"', chart.svg
        ):
            # A bar of a very small share is one pixel high.
            assert float(y) >= -len(series)
            assert float(y) + float(tall) <= HEIGHT
        assert len(chart.times) == len(values)


def test_text_is_escaped() -> None:
    """Names of queues and kinds are text in a chart, too."""
    markup = '"><script>alert(1)</script>'
    series = [Series(name=markup, css="c-0", values=[1.0])]
    for svg in (stacked(series, label=markup, **SPAN).svg, spark([1], markup)):
        assert "<script>" not in svg


@pytest.mark.parametrize("values", [[], [0], [0, 0], [1]])
def test_few_values(values: list[float]) -> None:
    """Nothing to show is shown as nothing."""
    assert spark(values, "x").count("<rect") == sum(map(bool, values))
    assert "width" in bar(0, 0)


def test_the_table_beside_it() -> None:
    """The table has the steps in which there was something, the latest first."""
    series = [Series(name="a", css="c-0", values=[1, 0, 3])]
    chart = stacked(series, label="x", **SPAN)
    assert chart.rows() == [
        (FIRST + timedelta(minutes=10), [3]),
        (FIRST, [1]),
    ]

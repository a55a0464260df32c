"""JSON and CSV of any value."""

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from riverrun.jobs.states import JobState
from riverrun.web.formats import etag_of, plain, to_csv, to_json


@attrs.frozen
class Row:
    """A row of a page."""

    name: object
    age_s: float = 0.0


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (2**63, 2**63),
        (float("inf"), "inf"),
        (JobState.running, "running"),
        (b"\x01\xff", "01ff"),
        (datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00:00:00+00:00"),
        ({JobState.running, JobState.available}, ["available", "running"]),
        ({1: (2, None)}, {"1": [2, None]}),
        (Row("a"), {"name": "a", "age_s": 0.0}),
    ],
)
def test_plain(value: object, found: object) -> None:
    """Each value becomes one that JSON has."""
    assert plain(value) == found
    assert json.loads(to_json("page", value))["data"] == found


def test_nests_too_deeply() -> None:
    """A value that nests more deeply than Python can follow is cut."""
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    assert b"..." in to_json("page", deep)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@a", "\t=1", "\r", "\uff1d1"])
def test_no_formulas(cell: str) -> None:
    """A text that a spreadsheet takes for a formula begins with an apostrophe."""
    text = to_csv(["name"], [Row(cell)]).decode()
    assert text.startswith(("name\r\n'", "name\r\n\"'"))


def test_numbers_stay_numbers() -> None:
    """A negative number is a number, and no formula."""
    assert to_csv(["name", "age_s"], [Row(-5, -0.5)]) == b"name,age_s\r\n-5,-0.5\r\n"


def test_an_age_is_no_change() -> None:
    """The version of a page changes with its data, but not because time passes."""
    assert etag_of(Row("a", 1.0)) == etag_of(Row("a", 2.0))
    assert etag_of(Row("a", 1.0)) != etag_of(Row("b", 1.0))

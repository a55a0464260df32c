"""In databases that cannot hold every character, the missing ones are escaped."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine

from databases import own_database
from factories import insert_job
from riverrun.jobs.row import JobRow
from riverrun.migrations import Line
from riverrun.migrations.run import migrate
from riverrun.verbs import claim, complete, fail, get
from riverrun.wire.characters import ASCII, storable

TEXT = "5 \u20ac, \xe9, \u65e5, \U0001f600, \x00, \ud800"
KEPT = {
    "UTF8": "5 \u20ac, \xe9, \u65e5, \U0001f600, \\x00, \\ud800",
    "LATIN1": "5 \\u20ac, \xe9, \\u65e5, \\U0001f600, \\x00, \\ud800",
    "WIN1252": "5 \u20ac, \xe9, \\u65e5, \\U0001f600, \\x00, \\ud800",
    "EUC_JP": "5 \\u20ac, \xe9, \u65e5, \\U0001f600, \\x00, \\ud800",
    "KOI8R": "5 \\u20ac, \\xe9, \\u65e5, \\U0001f600, \\x00, \\ud800",
}


@pytest.fixture(params=[*((each, None) for each in KEPT), ("LATIN1", "utf8")])
def database(server_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[Engine, str]]:
    """A migrated database in some encoding, and what it keeps of `TEXT`."""
    encoding, client = request.param
    options = {"client_encoding": client} if client else {}
    with own_database(server_url, encoding=encoding, connect_args=options) as engine:
        for line in Line:
            migrate(engine, line=line)
        yield engine, KEPT["LATIN1" if client else encoding]


def claimed(engine: Engine) -> JobRow:
    """Insert a job and claim it."""
    insert_job(engine, "public")
    [job] = claim(engine, client_id="me")
    return job


def test_keeps_what_can_be_kept(database: tuple[Engine, str]) -> None:
    """In errors, traces and outputs only the characters that a database lacks are escaped."""
    engine, kept = database
    job = claimed(engine)
    fail(engine, attrs.evolve(job, max_attempts=1), ValueError(TEXT))
    [entry] = get(engine, job.id).errors
    assert entry["error"] == f"ValueError: {kept}"
    assert entry["trace"].endswith(f"ValueError: {kept}\n")
    output = TEXT[:-6]  # neither NUL nor half a pair: those are refused where an output is set
    job = claimed(engine)
    complete(engine, job, metadata={"output": output, f"{output} key": [output]})
    short = kept[: -len(", \\x00, \\ud800")]
    assert get(engine, job.id).metadata == {"output": short, f"{short} key": [short]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"\\u0000"', '"\\\\u0000"'),
        ('"\\\\u0000"', '"\\\\u0000"'),
        ('"\\\\\\u0000"', '"\\\\\\\\u0000"'),
        ('"\\u0000\\u0000"', '"\\\\u0000\\\\u0000"'),
        ('"\u20ac"', '"\\\\u20ac"'),
        ('"\ud800"', '"\\\\ud800"'),
        ('"plain"', '"plain"'),
    ],
)
def test_escapes_in_json(value: str, expected: Any) -> None:
    """Escaped text is still JSON, whatever backslashes precede the escapes."""
    assert storable(value, ASCII) == expected

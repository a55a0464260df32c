"""Searches in lists: by args, by client, by text, and the window that bounds a search."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, text

from factories import T0, insert_job
from riverrun import JobListParams
from riverrun.errors import InvalidOption
from riverrun.jobs.listing import CLIENT_WINDOW, TEXT_WINDOW
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.verbs import delete_many, list_jobs
from riverrun.verbs.read import count_listed, list_briefs
from verbs.test_odd_rows import ODD, change


def found(engine: Engine, schema: str, **params: Any) -> list[int]:
    """Return the ids that a search finds, which are the same in either form of a list."""
    asked = JobListParams(**params)
    jobs = list_jobs(engine, asked, schema=schema)
    briefs = list_briefs(engine, asked, schema=schema)
    ids = [job.id for job in jobs.jobs]
    assert [job.id for job in briefs.jobs] == ids
    assert (briefs.cursor, briefs.more, briefs.window) == (jobs.cursor, jobs.more, jobs.window)
    return ids


def pages(engine: Engine, schema: str, params: JobListParams) -> Iterator[list[int]]:
    """Yield the ids of each page of a list, to its end."""
    while True:
        page = list_briefs(engine, params, schema=schema)
        yield [job.id for job in page.jobs]
        if not page.more:
            return
        params = attrs.evolve(params, after=page.cursor)


def test_args_that_contain(engine: Engine, schema: str) -> None:
    """Args are found by what they contain, whatever characters that has."""
    odd = "a'b\"c\\d%e:f\N{SNOWMAN} %(g)s \\u0041"
    a = insert_job(engine, schema, args={"order": {"id": 7, "of": odd}, "n": [1, 2]})
    b = insert_job(engine, schema, args={"order": {"id": 8}, "big": 2**63, "n": [2]})
    assert found(engine, schema, args={"order": {"id": 7}}) == [a]
    assert found(engine, schema, args={"order": {"of": odd}}) == [a]
    assert found(engine, schema, args={"n": [2]}) == [a, b]
    assert found(engine, schema, args={"n": [2]}, descending=True, states=["available"]) == [b, a]
    assert found(engine, schema, args={"big": 2**63}) == [b]
    assert found(engine, schema, args={"order": {"id": "7"}}) == []
    assert found(engine, schema, args={}) == [a, b]
    assert found(engine, schema, metadata={"of": odd}) == []


def test_the_client_that_claimed_last(engine: Engine, schema: str) -> None:
    """Jobs are found by the client that claimed them last, not by those before it."""
    a = insert_job(engine, schema, attempted_by=["one", "two"])
    b = insert_job(engine, schema, state=JobState.completed, attempted_by=["two", "one"])
    insert_job(engine, schema)
    insert_job(engine, schema, attempted_by=[])
    change(engine, schema, "attempted_by = '{{two,one},{one,two}}'", [insert_job(engine, schema)])
    assert found(engine, schema, client="two") == [a]
    assert found(engine, schema, client="one") == [b]
    final = {"states": sorted(FINAL_STATES), "order_by": "finalized_at"}
    assert found(engine, schema, client="one", **final) == [b]
    assert found(engine, schema, client="two", **final) == []
    assert found(engine, schema, client="two", states=["available"]) == [a]


def test_a_text(engine: Engine, schema: str) -> None:
    """A text is found in the kind, the args and the last error, in upper or lower case."""
    quoted = 'say "50%_\\" \N{SNOWMAN}'
    a = insert_job(engine, schema, kind="ship_order", args={"to": quoted})
    errors = [{"error": "Disk FULL"}, {"error": "no answer", "trace": "in ship.py"}]
    b = insert_job(engine, schema, errors=errors)
    for part in ("SHIP", "ship_order", quoted, quoted.upper(), '"to":', '\\"50%_\\\\', "50%_"):
        assert found(engine, schema, text=part) == [a], part
    assert found(engine, schema, text="No Answer") == [b]
    for part in ("disk full", "ship.py", "ship%order", "sh_p", "' OR true --"):
        assert found(engine, schema, text=part) == [], part
    assert found(engine, schema, text="name", kinds=["greet"]) == [b]


def test_large_values_are_not_searched(engine: Engine, schema: str) -> None:
    """Large args and errors are not read for a text, and so are not found."""
    # Of different digits, so that they do not become small by compression.
    large = "".join(f"{number * 7919:x}" for number in range(20_000))
    insert_job(engine, schema, args={"large": large, "x": "needle"})
    insert_job(engine, schema, errors=[{"error": "needle", "trace": large}])
    small = insert_job(engine, schema, args={"large": large[:500], "x": "needle"})
    assert found(engine, schema, text="needle") == [small]


def test_odd_rows_are_searched(engine: Engine, schema: str) -> None:
    """Rows that no client writes are searched with the others, and the odd ones found."""
    jobs = {name: insert_job(engine, schema) for name in ("nothing", *ODD)}
    for name, changes in ODD.items():
        change(engine, schema, changes, [jobs[name]])
    for order in ("id", "scheduled_at", "time"):
        for descending in (False, True):
            params = JobListParams(
                text="GREET", order_by=order, descending=descending, limit=4, window=3
            )
            seen = [job_id for page in pages(engine, schema, params) for job_id in page]
            kind = jobs["a kind that no client takes"]
            assert sorted(seen) == sorted(set(jobs.values()) - {kind}), (order, descending)
    assert found(engine, schema, args={"name": "Ada"})
    assert found(engine, schema, client="a") == []


@pytest.mark.parametrize(("window", "limit"), [(2, 10), (7, 2)])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    "order",
    [
        {},
        {"states": ["available", "scheduled"]},
        {"states": ["available", "completed"]},
        {"order_by": "scheduled_at"},
        {"order_by": "scheduled_at", "states": ["scheduled", "available", "available"]},
        {"order_by": "time", "states": ["available", "running"]},
        {"order_by": "time", "states": ["running", "completed", "available"]},
        {"order_by": "time", "states": ["completed", "available"]},
        {"order_by": "finalized_at", "states": ["completed"]},
        {"order_by": "finalized_at", "states": ["completed", "cancelled", "discarded"]},
    ],
    ids=str,
)
def test_windows_go_on_where_they_ended(
    engine: Engine, mixed: str, order: Any, descending: bool, window: int, limit: int
) -> None:
    """Searches window by window find each job once, in the order of one search of all."""
    params: dict[str, Any] = {"tags_any": ["odd"], "descending": descending, **order}
    whole = [job.id for job in list_briefs(engine, JobListParams(**params), schema=mixed).jobs]
    assert whole
    asked = JobListParams(**params, window=window, limit=limit)
    parts = list(pages(engine, mixed, asked))
    assert [job_id for part in parts for job_id in part] == whole
    assert all(len(part) <= min(limit, window) for part in parts)


@pytest.fixture(scope="module")
def mixed(engine: Engine, copied: Any) -> Iterator[str]:
    """A schema with jobs in several states, some at equal times and some without."""
    name = "mixed_jobs"
    with engine.begin() as connection:
        connection.connection.cursor().execute(copied(name))
    states = ["completed", "available", "running", "discarded", "scheduled", "cancelled"]
    for number in range(18):
        at = T0 + timedelta(seconds=number // 4 * (-1) ** number)
        state = JobState(states[number % 6])
        final = {"finalized_at": at} if state.is_final else {}
        tags = ["odd"] if number % 5 in (1, 3, 4) else []
        insert_job(engine, name, state=state, scheduled_at=at, attempted_at=at, tags=tags, **final)
    change(engine, name, "attempted_at = NULL", [2, 3])
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))


def test_a_window_is_stated(engine: Engine, schema: str) -> None:
    """A list says how many jobs it looked at, and whether there are more beyond."""
    a, b, c = (insert_job(engine, schema, tags=[tag]) for tag in ("odd", "even", "odd"))
    page = list_briefs(engine, JobListParams(tags_any=["odd"], window=2), schema=schema)
    assert ([job.id for job in page.jobs], page.more, page.window) == ([a], True, 2)
    page = list_briefs(
        engine, JobListParams(tags_any=["odd"], window=2, after=page.cursor), schema=schema
    )
    assert ([job.id for job in page.jobs], page.more, page.window) == ([c], False, 2)
    nothing = list_jobs(engine, JobListParams(tags_any=["none"], window=1), schema=schema)
    assert (nothing.jobs, nothing.more) == ([], True)
    assert nothing.cursor is not None
    whole = list_jobs(engine, JobListParams(), schema=schema)
    assert ([job.id for job in whole.jobs], whole.more, whole.window) == ([a, b, c], False, None)
    empty = list_jobs(engine, JobListParams(tags_any=["none"]), schema=schema)
    assert (empty.cursor, empty.more) == (None, False)
    assert JobListParams(text="a").searched == TEXT_WINDOW
    assert JobListParams(client="a").searched == CLIENT_WINDOW
    assert JobListParams(client="a", text="a", window=5).searched == 5


def test_a_window_bounds_a_count(engine: Engine, schema: str) -> None:
    """A count with a window is that of its jobs; a delete has no window."""
    for number in range(6):
        insert_job(engine, schema, tags=["odd"] if number % 2 else [])
    counts = {
        window: count_listed(engine, JobListParams(tags_any=["odd"], window=window), schema=schema)
        for window in (None, 1, 2, 4, 6, 7)
    }
    assert counts == {None: 3, 1: 0, 2: 1, 4: 2, 6: 3, 7: 3}
    assert len(delete_many(engine, JobListParams(tags_any=["odd"], window=1), schema=schema)) == 3


@pytest.mark.parametrize(
    "params",
    [
        {"args": [1]},
        {"args": "x"},
        {"args": {"x": float("inf")}},
        {"args": {1: 2}},
        {"args": {"x": "\x00"}},
        {"text": ""},
        {"text": "x" * 1_001},
        {"text": "\x00"},
        {"text": "\ud800"},
        {"text": 5},
        {"client": ""},
        {"client": b"x"},
        {"client": "a\x00"},
        {"window": 0},
        {"window": 10_000_001},
        {"window": "5"},
    ],
    ids=ascii,
)
def test_refuses_what_cannot_be_searched(params: dict[str, Any]) -> None:
    """A value that no row can have, or a window out of range, is refused."""
    with pytest.raises(InvalidOption, match=next(iter(params))):
        JobListParams(**params)

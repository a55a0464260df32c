"""The verbs on queues."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from riverrun.errors import InvalidOption, QueueNotFound
from riverrun.models import Queue
from riverrun.verbs import get_queue, list_queues, pause_queue, resume_queue, update_queue
from riverrun.verbs.queues import read_queues, upsert_queues

EARLY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATE = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)


def test_a_worked_queue_gets_a_row_that_stays_young(engine: Engine, schema: str) -> None:
    """The first upsert of a queue makes its row, and a later one only renews its time."""
    upsert_queues(engine, ["b", "a"], schema=schema, now=EARLY)
    rows = upsert_queues(engine, ["a"], schema=schema, now=LATE)
    assert [(row.name, row.created_at, row.updated_at) for row in rows] == [("a", EARLY, LATE)]
    listed = list_queues(engine, schema=schema)
    assert [(row.name, row.paused_at, row.metadata) for row in listed] == [
        ("a", None, {}),
        ("b", None, {}),
    ]
    assert [row.name for row in list_queues(engine, limit=1, schema=schema)] == ["a"]


def test_pause_keeps_the_first_time_and_resume_ends_it(engine: Engine, schema: str) -> None:
    """A paused queue keeps since when; updated_at moves only when something changed."""
    upsert_queues(engine, ["a"], schema=schema, now=EARLY)
    pause_queue(engine, "a", schema=schema, now=EARLY)
    (paused,) = pause_queue(engine, "a", schema=schema, now=LATE)
    assert (paused.paused_at, paused.updated_at) == (EARLY, EARLY)
    (resumed,) = resume_queue(engine, "a", schema=schema, now=LATE)
    assert (resumed.paused_at, resumed.updated_at) == (None, LATE)
    (again,) = resume_queue(engine, "a", schema=schema)
    assert again.updated_at == LATE


def test_a_star_means_every_queue(engine: Engine, schema: str) -> None:
    """A pause of "*" pauses every queue, and is no error where there is none."""
    assert pause_queue(engine, "*", schema=schema) == []
    upsert_queues(engine, ["a", "b"], schema=schema)
    assert {row.name for row in pause_queue(engine, "*", schema=schema)} == {"a", "b"}
    assert all(row.paused_at for row in read_queues(engine, ["a", "b"], schema=schema))
    resume_queue(engine, "*", schema=schema)
    assert not any(row.paused_at for row in list_queues(engine, schema=schema))


@pytest.mark.parametrize("verb", [get_queue, pause_queue, resume_queue])
@pytest.mark.parametrize("name", ["nowhere", "no queue has this", "q" * 129, "\x00", None])
def test_an_unknown_queue_is_an_error(engine: Engine, schema: str, verb: Any, name: Any) -> None:
    """A queue that no client works is refused by name, even if no queue can have that name."""
    with pytest.raises(QueueNotFound, match=re.escape(repr(name))):
        verb(engine, name, schema=schema)
    with pytest.raises(QueueNotFound):
        update_queue(engine, name, metadata={}, schema=schema)


def test_update_replaces_metadata(engine: Engine, schema: str) -> None:
    """An update replaces the whole metadata, and refuses what JSON cannot hold."""
    upsert_queues(engine, ["a"], schema=schema)
    update_queue(engine, "a", metadata={"owner": "billing", "n": 1}, schema=schema)
    update_queue(engine, "a", metadata={"owner": "é" * 8_000}, schema=schema)
    assert get_queue(engine, "a", schema=schema).metadata == {"owner": "é" * 8_000}
    for bad in ({"x": float("nan")}, {"x": "\x00"}, [1], None):
        with pytest.raises(InvalidOption):
            update_queue(engine, "a", metadata=bad, schema=schema)  # type: ignore[arg-type]


def test_a_pause_is_the_callers_own(engine: Engine, schema: str) -> None:
    """A pause that is rolled back with the caller's transaction has no effect."""
    upsert_queues(engine, ["a"], schema=schema)
    with Session(engine) as session:
        pause_queue(session, "a", schema=schema)
        session.rollback()
    mapped = engine.execution_options(schema_translate_map={None: schema})
    with Session(mapped) as session:
        assert session.scalars(select(Queue.paused_at)).all() == [None]

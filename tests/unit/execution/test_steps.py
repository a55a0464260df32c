"""Resumable steps, tested by the metadata that one attempt leaves for the next."""

import asyncio
from typing import Any

import pytest

from riverrun.errors import InvalidStep
from riverrun.execution.steps import CURSOR_KEY, STEP_KEY, Steps


class Broken(Exception):
    pass


def fail() -> None:
    """Fail, as a step does."""
    raise Broken


def test_a_failed_attempt_leaves_its_last_step_and_the_next_skips_to_the_one_after() -> None:
    """Completed steps do not run again; the one that failed does."""
    ran: list[str] = []
    steps = Steps({})
    assert steps.run("a", lambda: ran.append("a"))
    assert steps.run("b", lambda: ran.append("b"))
    with pytest.raises(Broken):
        steps.run("c", fail)
    assert steps.progress() == {STEP_KEY: "b"}

    again = Steps({STEP_KEY: "b"})
    assert not again.run("a", fail)
    assert not again.run("b", fail)
    assert again.run("c", lambda: ran.append("c"))
    assert again.unreached() is None
    assert ran == ["a", "b", "c"]


def test_nothing_follows_a_failed_step() -> None:
    """A worker that catches a step's error cannot go on to the next step."""
    steps = Steps({})
    with pytest.raises(Broken):
        steps.run("a", fail)
    with pytest.raises(Broken):
        steps.run("b", lambda: None)
    assert steps.progress() == {}


def test_a_cursor_is_kept_until_its_step_is_done() -> None:
    """A failed cursor step is taken up at its cursor; a completed one clears it."""
    seen: list[Any] = []
    steps = Steps({})
    steps.run("first", lambda: None)

    def half(cursor: Any) -> None:
        seen.append(cursor)
        steps.set_cursor({"row": 7})
        raise Broken

    with pytest.raises(Broken):
        steps.run_from("rows", half)
    left = steps.progress()
    assert left == {STEP_KEY: "first", CURSOR_KEY: {"rows": {"row": 7}}}

    again = Steps(left)
    assert not again.run("first", fail)
    assert again.run_from("rows", seen.append)
    assert seen == [None, {"row": 7}]
    with pytest.raises(Broken):
        again.run("last", fail)
    assert again.progress() == {STEP_KEY: "rows", CURSOR_KEY: None}


def test_a_step_completed_by_its_own_transaction_is_taken_up_at_its_cursor() -> None:
    """A checkpoint with a cursor names the step, and the step runs on from there."""
    steps = Steps({})
    kept: list[dict[str, Any]] = []
    steps.run_from("rows", lambda _: kept.append(steps.checkpoint(cursor=3)))
    assert kept == [{STEP_KEY: "rows", CURSOR_KEY: {"rows": 3}}]
    seen: list[Any] = []
    assert Steps(kept[0]).run_from("rows", seen.append)
    assert seen == [3]


def test_a_checkpoint_is_not_staged_a_second_time() -> None:
    """What one's own transaction keeps or rolls back is not written by the outcome as well."""
    steps = Steps({})

    def work() -> None:
        assert steps.checkpoint() == {STEP_KEY: "a", CURSOR_KEY: None}
        raise Broken

    with pytest.raises(Broken):
        steps.run("a", work)
    assert steps.progress() == {}


def test_a_step_that_is_gone_is_an_error() -> None:
    """A worker without the step to resume must not pass half-done work for success."""
    steps = Steps({STEP_KEY: "old"})
    assert not steps.run("new", fail)
    assert isinstance(steps.unreached(), InvalidStep)
    pending = Steps({CURSOR_KEY: {"rows": 1}})
    assert pending.run("other", lambda: None)
    assert isinstance(pending.unreached(), InvalidStep)
    assert pending.progress() == {}


def test_refuses_what_would_be_ambiguous() -> None:
    """Names are unique, steps are not nested, and a cursor belongs to a step."""
    with pytest.raises(InvalidStep, match="a list; expected an object"):
        Steps({"river:resumable_cursor": []})
    for metadata in ({}, {"river:resumable_step": "later"}):
        twice = Steps(metadata)
        twice.run("first", lambda: None)
        with pytest.raises(InvalidStep, match="duplicate resumable step 'first'"):
            twice.run("first", lambda: None)
    steps = Steps({CURSOR_KEY: {"rows": 1}})
    steps.run("a", lambda: None)
    with pytest.raises(InvalidStep, match="name"):
        steps.run("a", lambda: None)
    # The database would keep another name, which no later attempt would come to.
    for name in ("page \x00", "page \ud800"):
        with pytest.raises(InvalidStep, match="a step's name is a text"):
            Steps({}).run(name, lambda: None)
    with pytest.raises(InvalidStep, match="nest"):
        steps.run("b", lambda: steps.run("c", lambda: None))
    with pytest.raises(InvalidStep, match="cursor"):
        Steps({CURSOR_KEY: {"rows": 1}}).run("rows", lambda: None)
    with pytest.raises(InvalidStep, match="within a step"):
        Steps({}).set_cursor(1)
    other = Steps({})
    with pytest.raises(InvalidStep, match="JSON"):
        other.run("a", lambda: other.set_cursor(object()))
    with pytest.raises(InvalidStep, match="text"):
        Steps({}).run("", lambda: None)


@pytest.mark.parametrize(
    "metadata", [None, [], "x", {STEP_KEY: 5, CURSOR_KEY: "x"}, {STEP_KEY: ""}]
)
def test_metadata_written_by_hand_is_no_progress(metadata: Any) -> None:
    """Metadata of another shape is taken for none."""
    steps = Steps(metadata)
    assert steps.run("a", lambda: None)
    assert steps.unreached() is None


def test_a_cursor_of_an_async_step_is_kept() -> None:
    """A cursor step of an `async def` worker continues from its cursor, too."""
    seen: list[Any] = []
    steps = Steps({})

    async def half(cursor: Any) -> None:
        seen.append(cursor)
        steps.set_cursor(7)
        raise Broken

    async def rest(cursor: Any) -> None:
        seen.append(cursor)

    with pytest.raises(Broken):
        asyncio.run(steps.run_from_async("rows", half))
    again = Steps(steps.progress())
    assert asyncio.run(again.run_from_async("rows", rest))
    assert seen == [None, 7]
    assert again.progress() == {STEP_KEY: "rows", CURSOR_KEY: None}

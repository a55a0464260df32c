"""What a worker, an operator or an insert puts into a row has a bound, checked where it is set."""

from typing import Any

import pytest

from factories import job_row
from riverrun.clock import Clock
from riverrun.errors import InvalidOption, InvalidStep
from riverrun.execution.attempt_state import ContextParts
from riverrun.execution.context import JobContext
from riverrun.execution.steps import MAX_CURSOR_BYTES
from riverrun.jobs.json_values import MAX_METADATA_BYTES, json_problem, metadata_text
from riverrun.outcome import MAX_OUTPUT_BYTES, MAX_ROW_BYTES

MIB = 1024 * 1024


def context(**metadata: Any) -> JobContext:
    """Return the context of an attempt at a job with `metadata`."""
    parts = ContextParts(clock=Clock(), engine=None)
    return JobContext(job_row(metadata=metadata), parts, 0.0, None)


def nested(levels: int) -> Any:
    """Return lists in lists."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def holding_itself() -> Any:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


def test_metadata_has_a_bound() -> None:
    """A value that is too large is refused with its size and the limit, and nothing is staged."""
    ctx = context()
    with pytest.raises(InvalidOption, match=r"metadata is '33,.* bytes'; expected at most 33,554"):
        ctx.set_metadata("dump", "x" * MAX_METADATA_BYTES)
    assert ctx.staged == {}


def test_metadata_of_an_attempt_shares_one_bound() -> None:
    """Many values may have together what one may have; one in place of another counts once."""
    ctx = context()
    for _ in range(5):
        ctx.set_metadata("a", "x" * (20 * MIB))
    with pytest.raises(InvalidOption, match="in one attempt"):
        ctx.set_metadata("b", "x" * (20 * MIB))
    ctx.set_metadata("a", 1)
    ctx.set_metadata("b", "x" * (20 * MIB))


def test_an_output_has_a_bound_of_its_own() -> None:
    """The largest output and the largest metadata fit beside each other."""
    ctx = context()
    ctx.record_output("x" * (MAX_OUTPUT_BYTES - 2))
    ctx.set_metadata("a", "x" * (MAX_METADATA_BYTES - 8))
    with pytest.raises(InvalidOption, match="output"):
        ctx.record_output("x" * MAX_OUTPUT_BYTES)


def test_what_the_row_has_counts() -> None:
    """With what the job has already it must fit one row; what is replaced does not count."""
    before = "x" * (MAX_ROW_BYTES - 10 * MIB)
    ctx = context(before=before)
    with pytest.raises(InvalidOption, match="with what the job has already"):
        ctx.record_output("x" * (20 * MIB))
    ctx.set_metadata("before", None)
    ctx.record_output("x" * (20 * MIB))


def test_a_cursor_has_a_bound() -> None:
    """A cursor that is too large fails its step, with the limit."""
    ctx = context()
    with pytest.raises(InvalidStep, match="too large"):
        ctx.cursor_step("copy", lambda _: ctx.set_cursor("x" * MAX_CURSOR_BYTES))


@pytest.mark.parametrize("value", [nested(2_000), nested(200_000), holding_itself()])
def test_nesting_has_a_bound(value: Any) -> None:
    """What nests too deeply, or holds itself, is refused with a message, wherever it is set."""
    problem = json_problem(value)
    assert problem is not None
    assert "nests too deeply" in problem
    with pytest.raises(InvalidOption, match="nests too deeply"):
        metadata_text({"a": value})
    with pytest.raises(InvalidOption, match="nests too deeply"):
        context().set_metadata("a", value)
    with pytest.raises(InvalidOption, match="nests too deeply"):
        context().record_output(value)
    # As a test's report does; to free what is nested so deeply must not end the process.
    assert nested(400) is not None


def test_nesting_within_the_bound() -> None:
    """As many levels as the message allows are taken."""
    assert json_problem(nested(400)) is None
    context().record_output(nested(400))


@pytest.mark.parametrize("size", [MAX_METADATA_BYTES, 2 * MAX_METADATA_BYTES])
def test_metadata_text_counts_bytes(size: int) -> None:
    """The bound is in bytes, not in characters."""
    with pytest.raises(InvalidOption, match="bytes"):
        metadata_text({"a": "é" * (size // 2)})

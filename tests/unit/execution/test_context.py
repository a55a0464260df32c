"""JobContext: time, cancellation and what is staged, by a clock that is moved by hand."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from factories import T0, job_row
from riverrun.clock import Clock
from riverrun.errors import (
    ClientNotReady,
    ClientStopping,
    InvalidOption,
    JobCancelledRemotely,
    JobTimedOut,
)
from riverrun.execution.attempt_state import ContextParts
from riverrun.execution.context import JobContext


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        """Return where it was moved to."""
        return self.at


def context(clock: Clock, timeout_s: float | None = None) -> JobContext:
    """Return a context of a job that was claimed when the clock stood at 100."""
    return JobContext(job_row(), ContextParts(clock=clock, engine=None), 100.0, timeout_s)


def test_times_out_by_its_own_begin() -> None:
    """The attempt's time begins with its worker, not with its claim."""
    clock = Hand()
    ctx = context(clock, 5.0)
    clock.at = 200.0
    ctx.begin()
    clock.at = 204.9
    ctx.raise_if_cancelled()
    clock.at = 205.0
    with pytest.raises(JobTimedOut, match="5 s"):
        ctx.raise_if_cancelled()
    assert ctx.wait(60)


def test_keeps_the_first_reason() -> None:
    """Who cancels first is the reason; later ones change nothing."""
    ctx = context(Hand())
    assert not ctx.wait(0)
    ctx.cancel(JobCancelledRemotely())
    ctx.cancel(ClientStopping())
    assert ctx.wait(60)
    assert isinstance(ctx.reason, JobCancelledRemotely)


def test_returns_the_database_s_time() -> None:
    """Its time is that of the claim and what has passed since."""
    clock = Hand()
    clock.at = 107.0
    assert context(clock).now() == T0 + timedelta(seconds=7)


@pytest.mark.parametrize(
    "stage",
    [
        lambda ctx: ctx.set_metadata("key", object()),
        lambda ctx: ctx.record_output(float("nan")),
        lambda ctx: ctx.record_output("\x00"),
    ],
)
def test_refuses_what_json_cannot_hold(stage: Callable[[JobContext], Any]) -> None:
    """What could not be written is refused when it is staged."""
    ctx = context(Hand())
    with pytest.raises(InvalidOption):
        stage(ctx)
    assert not ctx.staged


def test_has_no_transaction_without_an_engine() -> None:
    """Outside of a client there is no engine to begin one on."""
    with pytest.raises(ClientNotReady), context(Hand()).transaction():
        pass

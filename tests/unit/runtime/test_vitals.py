"""What a heartbeat writes, from producers in any state."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from riverrun.config import QueueConfig
from riverrun.execution.plugins import Plugin
from riverrun.execution.workers import Workers
from riverrun.runtime.vitals import Vitals, memory_bytes
from riverrun.testing.clock import FrozenClock


class Producers(list[Any]):
    """Producers, of which so many attempts are claimed and run."""

    def __init__(self, claimed: int, running: int, *poll_at: float) -> None:
        super().__init__(
            SimpleNamespace(queue="q", config=QueueConfig(), poll_at=at, poll_interval_s=1.0)
            for at in poll_at
        )
        self._claimed, self._running = claimed, running

    def claimed(self) -> list[int]:
        """Return as many items as jobs are claimed."""
        return [0] * self._claimed

    def running(self) -> list[int]:
        """Return as many items as attempts run."""
        return [0] * self._running


def state(*figures: Any, plugins: Sequence[Plugin] = ()) -> dict[str, Any]:
    """Return the state of a client at 100 s by its clock."""
    clock = FrozenClock()
    clock.advance(100.0)
    loop: Any = SimpleNamespace(silent_s=lambda: None)
    producers: Any = Producers(*figures)
    vitals = Vitals(producers, loop, workers=Workers(), plugins=plugins, clock=clock)
    return vitals.state()


@pytest.mark.parametrize(
    ("claimed", "running", "ahead"), [(0, 0, 0), (12, 5, 7), (5, 5, 0), (4, 5, 0)]
)
def test_running_is_not_claimed_ahead(claimed: int, running: int, ahead: int) -> None:
    """Jobs that were claimed and have not begun are ahead, never fewer than none."""
    found = state(claimed, running)
    assert (found["running"], found["ahead"]) == (running, ahead)


@pytest.mark.parametrize(
    ("poll_at", "looked_s"),
    [((), None), ((math.inf,), None), ((101.0, 71.0, math.inf), 30.0), ((102.0,), 0.0)],
)
def test_the_longest_time_without_a_look(poll_at: tuple[float, ...], looked_s: Any) -> None:
    """Only queues with room count, and of those the one where the last look is longest ago."""
    assert state(0, 0, *poll_at)["looked_s"] == looked_s


def test_memory_is_unknown_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, the memory is unknown and nothing fails."""

    def missing(*_: object) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert memory_bytes() is None

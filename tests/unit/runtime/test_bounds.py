"""When a producer looks at its whole queue, and when only behind what it claimed."""

from types import SimpleNamespace
from typing import Any

from riverrun.runtime.bounds import CHEAP_S, ClaimBounds


def jobs(*places: tuple[int, int, int]) -> Any:
    """Return claimed jobs at these places."""
    return [SimpleNamespace(place=place) for place in places]


def look(bounds: ClaimBounds, at: float, took_s: float, found: Any, asked: int = 100) -> bool:
    """Make a claim; return whether it was bounded."""
    beyond = bounds.at(at)
    bounds.claimed(beyond, found, asked=asked, began=at, ended=at + took_s)
    return beyond is not None


def test_claims_are_whole_while_they_are_cheap() -> None:
    """No claim is bounded as long as looks at the whole queue are fast, or one alone was slow."""
    bounds = ClaimBounds()
    for at, took_s in enumerate((0.001, 1.0, 0.001, 0.5, CHEAP_S)):
        assert not look(bounds, at, took_s, jobs((1, at, at)))
    assert not bounds.unsure


def test_dear_looks_take_a_tenth_of_the_time() -> None:
    """After two dear looks claims are bounded for ten times as long; then one looks again."""
    bounds = ClaimBounds()
    assert not look(bounds, 0.0, 0.1, jobs((1, 0, 1), (3, 0, 2)))
    assert not look(bounds, 1.0, 0.1, jobs((1, 0, 3)))
    assert 2.0 < bounds.whole_at < 2.2
    assert bounds.at(1.5) == {1: (1, 0, 3), 3: (3, 0, 2)}
    assert look(bounds, 1.5, 0.001, jobs((3, 5, 4)), asked=1)
    assert not bounds.unsure
    assert bounds.at(1.6) == {1: (1, 0, 3), 3: (3, 5, 4)}
    assert look(bounds, 1.6, 0.001, [])
    assert bounds.unsure
    assert not look(bounds, 2.2, 0.001, jobs((1, 0, 2)))
    assert not bounds.unsure
    assert bounds.at(2.21) is None


def test_a_look_is_never_far_away() -> None:
    """However long looks took, such as for a lock, the next one comes within two seconds."""
    bounds = ClaimBounds()
    look(bounds, 0.0, 3.0, jobs((1, 0, 1)))
    look(bounds, 4.0, 3.0, jobs((1, 0, 2)))
    assert bounds.at(8.9) is not None
    assert bounds.at(9.0) is None


def test_bounds_do_not_go_back() -> None:
    """An older job that is claimed again does not put the bound before jobs that were worked."""
    bounds = ClaimBounds()
    look(bounds, 0.0, 1.0, jobs((1, 9, 9)))
    look(bounds, 2.0, 1.0, jobs((1, 1, 1)))
    assert bounds.at(3.1) == {1: (1, 9, 9)}


def test_many_rows_are_not_dear() -> None:
    """A claim of many jobs takes long because of its rows."""
    bounds = ClaimBounds()
    for at in range(3):
        assert not look(bounds, at, 0.1, jobs(*((1, at, n) for n in range(1_000))), asked=1_000)

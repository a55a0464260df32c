"""When a failed job may be claimed again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from factories import job_row
from goldens import DELAYS_NS
from riverrun.errors import InvalidOption
from riverrun.policies.backoff import Backoff, Constant, Explicit, Exponential, Linear, RiverBackoff

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def delays(policy: Backoff, count: int) -> list[float]:
    """Return the seconds that `policy` waits after each of `count` failures."""
    rows = [job_row(errors=({},) * earlier) for earlier in range(count)]
    return [(policy(row, NOW) - NOW).total_seconds() for row in rows]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RiverBackoff(jitter=0), [1, 16, 81, 256, 625]),
        (Exponential(jitter=0), [1, 2, 4, 8, 16]),
        (Exponential(base=3, initial=2, cap=20, jitter=0), [2, 6, 18, 20, 20]),
        (Linear(step=timedelta(seconds=5), cap=12, jitter=0), [5, 10, 12, 12, 12]),
        (Constant(delay=7, jitter=0), [7, 7, 7, 7, 7]),
        (Explicit([1, 60, timedelta(hours=1)], jitter=0), [1, 60, 3600, 3600, 3600]),
    ],
)
def test_each_policy_waits_as_it_says(policy: Backoff, expected: list[float]) -> None:
    """A delay depends on the number of failures, including this one."""
    assert delays(policy, 5) == expected


@pytest.mark.parametrize(("dice", "factor"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_jitter_is_ten_percent_either_way(dice: float, factor: float) -> None:
    """River's jitter makes a delay up to a tenth longer or shorter."""
    assert delays(RiverBackoff(rng=lambda: dice), 2)[1] == pytest.approx(16 * factor)


@pytest.mark.parametrize("failures", DELAYS_NS)
@pytest.mark.parametrize("dice", [0.0, 0.5, 1.0])
def test_rivers_delays_are_those_of_the_golden_data(failures: int, dice: float) -> None:
    """The delay is within River's bounds for every random number, to the microsecond."""
    job = job_row(errors=({},) * (failures - 1))
    delay_us = (RiverBackoff(rng=lambda: dice)(job, NOW) - NOW) // timedelta(microseconds=1)
    low, high = DELAYS_NS[failures]
    assert low // 1_000 <= delay_us <= high // 1_000 + 1


def test_rivers_twenty_fifth_delay_is_four_and_a_half_days() -> None:
    """The last of River's default attempts comes after about 4.5 days."""
    assert delays(RiverBackoff(jitter=0), 25)[24] == 25**4


@pytest.mark.parametrize("policy", [RiverBackoff(), Exponential(base=1e9, cap=1e300)])
def test_a_delay_past_the_calendar_is_its_end(policy: Backoff) -> None:
    """For any number of failures, the result is a time and never an overflow."""
    at = policy(job_row(errors=({},) * 5_000), NOW)
    assert NOW < at <= datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (RiverBackoff, {"jitter": -0.1}),
        (RiverBackoff, {"jitter": float("nan")}),
        (Exponential, {"base": 0.5}),
        (Exponential, {"cap": -1}),
        (Linear, {"step": "10"}),
        (Constant, {"delay": float("inf")}),
        (Explicit, {"delays": []}),
    ],
)
def test_senseless_options_are_refused(policy: Any, options: dict[str, Any]) -> None:
    """A policy with invalid values is refused when it is made."""
    with pytest.raises(InvalidOption):
        policy(**options)

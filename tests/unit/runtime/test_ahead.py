"""How many jobs a producer claims at once, and how far ahead of its free slots."""

import pytest

from riverrun.clock import Clock
from riverrun.config import QueueConfig
from riverrun.runtime.ahead import ClaimAhead


@pytest.mark.parametrize(
    ("slots", "ahead", "most"),
    [(100, 0, 100), (100, 100, 100), (100, 200, 150), (100, 2_000, 1_050), (1, 0, 1), (1, 5, 3)],
)
def test_a_claim_leaves_as_many_to_work(slots: int, ahead: int, most: int) -> None:
    """One claim takes half of what the process may hold; all free slots, if that is more."""
    claims = ClaimAhead(QueueConfig(max_workers=slots), Clock())
    claims.jobs = ahead
    assert claims.most == most

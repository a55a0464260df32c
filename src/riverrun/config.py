"""How a client works: its options, checked when they are made."""

import attrs

from riverrun.clock import Duration
from riverrun.jobs.checks import check_duration, check_int


def _max_workers(value: object) -> int:
    return check_int("max_workers", value, 1, 10_000)


def _poll_interval_or_none(value: object) -> Duration | None:
    return None if value is None else check_duration("poll_interval", value, 0.01)


def _claim_ahead(value: object) -> int:
    return check_int("claim_ahead", value, 0, 10_000)


@attrs.frozen(kw_only=True)
class QueueConfig:
    """How a client works one queue.

    Attributes:
        max_workers: Slots: jobs of this queue that run at once in this client, 1 to 10,000.
        poll_interval: Seconds or a timedelta between looks when no notification comes; the
            client's unless said.
        claim_ahead: Most jobs claimed beyond the free slots while jobs are shorter than the round
            trip that claims them. They wait in this process, and go back to the queue after 0.2 s,
            on a pause and on stop. 0 turns it off. Default: 200.

    Raises:
        InvalidOption: If a value is out of range.
    """

    max_workers: int = attrs.field(default=100, converter=_max_workers)
    poll_interval: Duration | None = attrs.field(
        default=None,
        converter=_poll_interval_or_none,
    )
    claim_ahead: int = attrs.field(default=200, converter=_claim_ahead)

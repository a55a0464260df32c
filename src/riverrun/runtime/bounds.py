"""Bounds of a producer's claims, which keep them fast while an old transaction is open.

As long as a transaction sees an old state of the tables, PostgreSQL cannot remove the index entries
of jobs that were worked since, and they lie in front of the jobs that wait. A claim that reads them
all takes longer the more of them there are. So a producer remembers the last job that it claimed of
each priority, and once such claims take long, most of its claims look only behind those jobs. Jobs
that lie before them, such as one that was retried or whose transaction was long, are found by a
look at the whole queue. Such looks take a tenth of the time. If one takes more than 0.2 s, the next
comes after two seconds.
"""

from collections.abc import Sequence

from riverrun.verbs.claim import Bounds, ClaimedJob, Place

CHEAP_S = 0.005
"""Seconds up to which a look at the whole queue is not worth avoiding."""

ROW_S = 0.0001
"""Seconds that each claimed job may add to CHEAP_S."""

BOUNDED_FACTOR = 10.0
"""After such a look, claims are bounded for this many times as long as it took."""

BOUNDED_MAX_S = 2.0
"""Maximum seconds for which claims are bounded.

The look may have taken long for another reason, such as a lock.
"""


class ClaimBounds:
    """Which part of its queue a producer looks at, by the process's monotonic clock."""

    def __init__(self) -> None:
        self._last: dict[int, Place] = {}
        self._is_dear = False  # the last look at the whole queue was
        self.whole_at = 0.0  # when the next look at the whole queue is due
        self.unsure = False  # a bounded claim got less than it asked for since the last such look

    def at(self, now: float) -> Bounds | None:
        """Return the bounds of a claim at `now`; None for a look at the whole queue."""
        return self._last if self._last and now < self.whole_at else None

    def claimed(
        self,
        beyond: Bounds | None,
        jobs: Sequence[ClaimedJob],
        *,
        asked: int,
        began: float,
        ended: float,
    ) -> None:
        """Record a claim.

        Args:
            beyond: Its bounds; None if it looked at the whole queue.
            jobs: The jobs that it got, in the order of their places.
            asked: How many it asked for.
            began: When it began.
            ended: When it ended.
        """
        last = self._last
        if jobs:
            first, final = jobs[0].place, jobs[-1].place
            places = [final] if first[0] == final[0] else [job.place for job in jobs]
            for place in places:
                if place > last.get(place[0], place[:1]):
                    last[place[0]] = place
        if beyond is not None:
            self.unsure = self.unsure or len(jobs) < asked
            return
        took_s = ended - began - ROW_S * len(jobs)
        was_dear, self._is_dear = self._is_dear, took_s > CHEAP_S
        # Not after one such look: the machine may have been busy.
        pause_s = min(BOUNDED_FACTOR * took_s, BOUNDED_MAX_S)
        self.whole_at = ended + pause_s if was_dear and self._is_dear else 0.0
        self.unsure = False

"""How many jobs a producer claims beyond its free slots, while jobs are shorter than a claim."""

import math
from collections import deque

from riverrun.clock import Clock
from riverrun.config import QueueConfig

AHEAD_S = 0.1
"""Seconds that a job claimed ahead should wait in this process at most.

The wait is estimated from the time that recent attempts took.
"""

CLAIMS = 5
"""How many claims give the median time below which jobs count as short.

A median, because one claim may have been held up.
"""

WARY_S, WARY_MAX_S = 1.0, 5.0
"""Seconds for which nothing is claimed ahead after jobs went back. The second is the limit of
doublings."""


class ClaimAhead:
    """The number of jobs that one producer may claim ahead. Its thread alone changes it.

    Attributes:
        jobs: How many jobs may be claimed beyond the free slots now.
        soon: How many attempts are expected to end within AHEAD_S, at the recent rate.
        recent_run_s: How many seconds the attempts since the last claim took.
        claims_s: How many seconds recent claims took.
        wary_until: Until when nothing is claimed ahead.
    """

    def __init__(self, config: QueueConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self.jobs = 0
        self.soon = 0
        self.recent_run_s: deque[float] = deque(maxlen=1_000)  # appended to by any thread
        self.claims_s: deque[float] = deque(maxlen=CLAIMS)
        self.wary_until = -math.inf
        self._wary_s = WARY_S
        self._adapted_at = clock.monotonic()

    @property
    def worthwhile(self) -> int:
        """The least number of jobs for which to claim."""
        # Ahead of free slots, claim half a buffer at a time. For free slots, claim one by one.
        return max(1, self.jobs // 2)

    @property
    def most(self) -> int:
        """The most jobs for one claim: half of what may be held here, and at least all slots."""
        slots = self._config.max_workers
        return max(slots, (slots + self.jobs) // 2)

    def adapt(self, asked: int, got: int, claim_s: float, *, mixed: bool) -> None:
        """Claim further ahead while jobs are shorter than the claim that got them.

        Args:
            asked: How many jobs the last claim asked for.
            got: How many it got.
            claim_s: Seconds that it took.
            mixed: Whether the queue has workers of both sorts, each of which fills all slots.
        """
        self.claims_s.append(claim_s)
        took_s = list(self.recent_run_s)
        self.recent_run_s.clear()
        if not took_s:
            return
        now = self._clock.monotonic()
        rate, self._adapted_at = len(took_s) / max(now - self._adapted_at, 1e-6), now
        mean_s = sum(took_s) / len(took_s)
        self.soon = int(AHEAD_S * rate)
        typical_s = sorted(self.claims_s)[len(self.claims_s) // 2]
        if now < self.wary_until or mean_s >= typical_s or mixed:
            self.jobs = 0
            return
        if got == asked:
            slots = self._config.max_workers
            # The bound follows from how long attempts take and from how many end: a process may be
            # short of processors.
            bound = int(AHEAD_S * min(rate, slots / max(mean_s, 1e-6)))
            self.jobs = min(max(2 * self.jobs, slots), bound, self._config.claim_ahead)

    def retreat(self) -> None:
        """Claim nothing ahead for some seconds, because jobs take longer than those before them."""
        now = self._clock.monotonic()
        again = now < self.wary_until + self._wary_s
        self._wary_s = min(2 * self._wary_s, WARY_MAX_S) if again else WARY_S
        self.wary_until = now + self._wary_s
        self.jobs = 0

"""How fast are `async def` workers that wait, in 5,000 slots of one event loop?

`python -m benchmarks.coroutines` is the process that works the jobs.
"""

import asyncio
import sys

from sqlalchemy import Engine

from benchmarks.drain import raw, wait, waiting
from benchmarks.harness import Comparison, drained, in_turns, profiled, settings_for
from riverrun.bench.run import Elsewhere
from riverrun.bench.settings import TUNED_GC_THRESHOLD
from riverrun.bench.work import Bench, NoOp, work

AWAITED_S = 0.05
OURS = "riverrun, 5,000 slots"


class Awaiting(Bench):
    """A client whose jobs wait, as if for an answer over the network."""

    async def no_op(self, args: NoOp) -> None:
        """Wait, then count the job."""
        await asyncio.sleep(AWAITED_S)
        super().no_op(args)


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Drain 50,000 jobs that await 50 ms each, compared with a raw loop that runs no workers."""
    jobs, slots, rounds = (2_000, 500, 1) if small else (50_000, 5_000, 5)
    bound = slots / AWAITED_S

    def lower() -> float:
        return min(bound, raw(engine, jobs, 1_000))

    def ours() -> float:
        with waiting(engine, jobs) as name:
            settings = settings_for(engine, name, slots=slots, gc_threshold=TUNED_GC_THRESHOLD)
            command = [sys.executable, "-m", "benchmarks.coroutines"]
            with Elsewhere(command, settings.environment()) as crew:
                wait(engine, name)
            assert crew.worked == jobs
            return drained(engine, jobs)

    comparison = Comparison(
        question=f"drain of {jobs:,} coroutines that await 50 ms",
        unit="jobs/s",
        samples=in_turns({"raw loop, 1,000 at a time": lower, OURS: ours}, rounds),
        targets={OURS: 0.85},
        settings={"max_workers": slots, "gc_threshold": TUNED_GC_THRESHOLD},
        notes=[f"{slots:,} slots that wait 50 ms can do {bound:,.0f} jobs/s at most."],
    )
    return [profiled(comparison, {OURS: ours})]


if __name__ == "__main__":
    work(Awaiting)

"""How fast are `async def` workers that wait, in 5,000 slots of one event loop?

As `python -m benchmarks.coroutines` it is the process that works them.
"""

import asyncio
import sys

from sqlalchemy import Engine

from benchmarks.drain import raw, wait, waiting
from benchmarks.harness import Comparison, drained, in_turns, profiled
from riverrun.bench.run import Elsewhere
from riverrun.bench.settings import TUNED_GC_THRESHOLD, Settings
from riverrun.bench.work import Bench, NoOp, work
from riverrun.config import QueueConfig

AWAITED_S = 0.05
OURS = "riverrun, 5,000 slots"


class Awaiting(Bench):
    """A client whose jobs wait, as for an answer from elsewhere."""

    async def no_op(self, args: NoOp) -> None:
        """Wait, and count one more."""
        await asyncio.sleep(AWAITED_S)
        super().no_op(args)


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Drain 50,000 jobs that await 50 ms each, beside a loop that works none."""
    jobs, slots, rounds = (2_000, 500, 1) if small else (50_000, 5_000, 5)
    bound = slots / AWAITED_S

    def lower() -> float:
        return min(bound, raw(engine, jobs, 1_000))

    def ours() -> float:
        with waiting(engine, jobs) as name:
            settings = Settings(
                url=engine.url.render_as_string(hide_password=False),
                schema=name,
                queue="default",
                max_workers=slots,
                claim_ahead=QueueConfig().claim_ahead,
                gc_threshold=TUNED_GC_THRESHOLD,
            )
            command = [sys.executable, "-m", "benchmarks.coroutines"]
            with Elsewhere(command, settings.environment()) as crew:
                wait(engine, name)
            assert crew.worked == jobs
            return drained(engine, jobs)

    comparison = Comparison(
        question=f"drain of {jobs:,} coroutines that await 50 ms",
        unit="jobs/s",
        samples=in_turns({"raw loop, 1,000 at a time": lower, OURS: ours}, rounds),
        targets={OURS: 0.5},
        settings={"max_workers": slots, "gc_threshold": TUNED_GC_THRESHOLD},
        notes=[f"{slots:,} slots that wait 50 ms can do {bound:,.0f} jobs/s at most."],
    )
    return [profiled(comparison, {OURS: ours})]


if __name__ == "__main__":
    work(Awaiting)

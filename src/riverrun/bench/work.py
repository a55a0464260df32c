"""The jobs of a benchmark, and the client that works them.

`python -m riverrun.bench.work` is a process that only works jobs. It prints "ready", starts once it
reads a line, and ends when its input does.
"""

import itertools
import sys
import time

import attrs

from riverrun import Client, JobArgs, JobContext, QueueConfig, Workers
from riverrun.bench.settings import Settings, settings_from_environment


@attrs.frozen
class NoOp(JobArgs, kind="riverrun_bench_no_op"):
    """Args of a job that does nothing."""

    number: int = 0


@attrs.frozen
class Nap(JobArgs, kind="riverrun_bench_nap"):
    """Args of a job that waits."""

    ms: int = 10


@attrs.frozen
class PickUp(JobArgs, kind="riverrun_bench_pick_up"):
    """Args of a job that records when it begins."""

    number: int = 0


class Bench:
    """A client that works a benchmark's jobs, and counts them."""

    def __init__(self, settings: Settings) -> None:
        self._calls = itertools.count()
        workers = Workers()
        workers.register(self.no_op)
        workers.register(self._nap)
        workers.register(self._pick_up)
        config = QueueConfig(max_workers=settings.max_workers, claim_ahead=settings.claim_ahead)
        self.client = Client(
            settings.engine(),
            workers=workers,
            queues={settings.queue: config},
            schema=settings.schema,
            reindexer_schedule=None,
            leader_election_disabled=not settings.leads,
            completed_retention=0 if settings.deletes else None,
        )
        self._reads = 0

    def worked(self) -> int:
        """Return how many jobs of the kinds NoOp and Nap were worked."""
        # next() of a counter is atomic, so workers need no lock. Each read here counts up too.
        self._reads += 1
        return next(self._calls) - (self._reads - 1)

    def no_op(self, _: NoOp) -> None:
        """Count the job."""
        next(self._calls)

    def _nap(self, args: Nap) -> None:
        time.sleep(args.ms / 1e3)
        next(self._calls)

    def _pick_up(self, _: PickUp, ctx: JobContext) -> None:
        ctx.record_output(time.monotonic_ns())


def work(kind: type[Bench]) -> None:
    """Work until the input ends; then print how many jobs were worked."""
    settings = settings_from_environment()
    settings.apply()
    bench = kind(settings)
    with bench.client.engine.connect():
        pass  # The first connection of an engine queries the server's version and settings.
    print("ready", flush=True)  # noqa: T201  the parent process waits for it
    if sys.stdin.readline():
        with bench.client:
            sys.stdin.read()
        print(bench.worked(), flush=True)  # noqa: T201  the parent process adds it up


if __name__ == "__main__":
    work(Bench)

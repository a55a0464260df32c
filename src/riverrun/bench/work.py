"""The jobs of a benchmark, who works them, and a process that does nothing else.

`python -m riverrun.bench.work` says "ready", works when a line comes, and ends when its input does.
"""

import itertools
import sys
import time

import attrs

from riverrun import Client, JobArgs, JobContext, QueueConfig, Workers
from riverrun.bench.settings import Settings, told


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
    """Args of a job that says when it begins."""

    number: int = 0


class Bench:
    """A client that works a benchmark's jobs, and how many it has worked."""

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
        )
        self._asked = 0

    def worked(self) -> int:
        """Return how many jobs were worked that do nothing, or wait."""
        # A counter's next is one step of the interpreter: no worker has to lock for it.
        self._asked += 1
        return next(self._calls) - (self._asked - 1)

    def no_op(self, _: NoOp) -> None:
        """Count one more."""
        next(self._calls)

    def _nap(self, args: Nap) -> None:
        time.sleep(args.ms / 1e3)
        next(self._calls)

    def _pick_up(self, _: PickUp, ctx: JobContext) -> None:
        ctx.record_output(time.monotonic_ns())


def work(kind: type[Bench]) -> None:
    """Work until the input ends; say then how many jobs it was."""
    settings = told()
    settings.apply()
    bench = kind(settings)
    with bench.client.engine.connect():
        pass  # The first connection of an engine asks the server about itself.
    print("ready", flush=True)  # noqa: T201  whoever started this process waits for it
    if sys.stdin.readline():
        with bench.client:
            sys.stdin.read()
        print(bench.worked(), flush=True)  # noqa: T201  and adds it up


if __name__ == "__main__":
    work(Bench)

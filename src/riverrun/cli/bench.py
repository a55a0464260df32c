"""`riverrun bench`: measure how fast this machine and this database work jobs."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import attrs
import click

from riverrun.cli.app import (
    CommandError,
    ExitCode,
    database_engine,
    database_option,
    option,
    reported,
)


@click.command
@database_option()
@option("--schema", help="A schema with River's tables. Default: a temporary one.")
@option(
    "--jobs",
    type=click.IntRange(1, 10_000_000),
    help="Insert this many jobs, then work them. Default: insert and work until stopped.",
)
@option(
    "--duration", type=click.FloatRange(min=0.1), help="Seconds that a run without --jobs takes."
)
@option(
    "--max-workers",
    type=click.IntRange(1, 10_000),
    help="Slots of each process. Default: 100.",
)
@option("--tuned", is_flag=True, help="Use settings for high throughput.")
@option(
    "--processes",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="How many processes work the queue.",
)
@option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a summary.")
def bench(
    database_url: str,
    schema: str | None,
    jobs: int | None,
    duration: float | None,
    max_workers: int | None,
    tuned: bool,
    processes: int,
    as_json: bool,
) -> None:
    """Measure how many jobs per second are worked, and how soon a job begins.

    The jobs do nothing. They have a queue of their own, and a temporary schema unless --schema is
    given; both are removed afterwards. The rate counts completed jobs from the first claim to the
    last completion. The command checks that each job was worked exactly once. --tuned means batches
    of 600 and a garbage collector that runs less often.

    Exit codes: 0 each job was worked once; 1 a job was worked twice or not at all.
    """
    from riverrun.bench import run
    from riverrun.bench.settings import TUNED_AHEAD, TUNED_GC_THRESHOLD, TUNED_SLOTS, Settings
    from riverrun.config import QueueConfig

    with database_engine(database_url) as engine:
        url = engine.url.render_as_string(hide_password=False)
    default = QueueConfig()
    with stop_on_signal() as stop, reported():
        try:
            with run.place(url, schema) as (name, queue):
                settings = Settings(
                    url=url,
                    schema=name,
                    queue=queue,
                    max_workers=max_workers or (TUNED_SLOTS if tuned else default.max_workers),
                    claim_ahead=TUNED_AHEAD if tuned else default.claim_ahead,
                    gc_threshold=TUNED_GC_THRESHOLD if tuned else None,
                    leads=schema is None,  # Do not maintain the jobs of others in their schema.
                )
                result = run.bench(
                    settings,
                    jobs=jobs,
                    duration_s=duration,
                    processes=processes,
                    stop=stop,
                    show=lambda line: click.echo(line, err=as_json),
                )
        except run.WorkedWrongly as error:
            raise CommandError(str(error), ExitCode.cut_off) from error
    if as_json:
        click.echo(json.dumps(attrs.asdict(result)))
    else:
        if result.pickup_p50_ms is None:
            pickup = "not measured"
        else:
            pickup = f"p50 {result.pickup_p50_ms:g} ms, p99 {result.pickup_p99_ms:g} ms"
        click.echo(
            f"\n{result.worked:,} of {result.inserted:,} jobs in {result.seconds:,.2f} s: "
            f"{result.jobs_per_second:,.0f} jobs/s\npick-up at idle: {pickup}"
        )
    sys.exit(ExitCode.interrupted if stop.is_set() and jobs is not None else ExitCode.ok)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set, so that an interrupted run still cleans up."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

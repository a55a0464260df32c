"""`riverrun insert`: insert a job, or many, from the shell."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import click

from riverrun.cli.app import (
    CommandError,
    ExitCode,
    Seconds,
    json_object,
    option,
    target,
    target_options,
)
from riverrun.cli.output import progress, show_one
from riverrun.execution.typed_args import typed_args
from riverrun.jobs.options import InsertOpts

BATCH = 1_000


@click.command
@click.argument("kind")
@click.argument("args", default="{}", metavar="[JSON|-]")
@option(
    "--queue",
    "-q",
    envvar="RIVERRUN_INSERT_QUEUE",  # RIVERRUN_QUEUE is what `riverrun work` works
    help="The queue. Default: the kind's own, else default.",
)
@option("--priority", type=click.IntRange(1, 4), help="1, the highest, to 4.")
@option("--max-attempts", type=click.IntRange(1, 32_767), help="Maximum number of attempts.")
@option("--delay", type=Seconds(), help="Seconds until the job may be worked.")
@option("--at", metavar="TIME", help="When the job may be worked: 2026-12-24T18:00:00+01:00.")
@option("--tag", "tags", multiple=True, help="A tag; may be given several times.")
@option("--metadata", metavar="JSON", help="An object to keep with the job.")
@target_options
def insert(
    kind: str,
    args: str,
    queue: str | None,
    priority: int | None,
    max_attempts: int | None,
    delay: float | None,
    at: str | None,
    tags: tuple[str, ...],
    metadata: str | None,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Insert a job of KIND with a JSON object as its args; with -, one job per line of stdin.

    With --app, the args must suit the application's worker, and the kind's own options apply. All
    lines are one transaction: if one is refused, none is inserted.
    """
    if delay is not None and at is not None:
        raise click.UsageError("--delay or --at, not both")
    with target(app, database_url, schema) as on:
        opts = InsertOpts(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            scheduled_at=_time(at, delay),
            tags=list(tags) or None,
            metadata=None if metadata is None else json_object("--metadata", metadata),
        )
        if args != "-":
            result = on.client.insert(
                on.engine, typed_args(on.client.workers, kind, json_object("the args", args)), opts
            )
            show_one(
                {
                    "id": result.job.id,
                    "kind": kind,
                    "queue": result.job.queue,
                    "state": result.job.state.value,
                    "skipped_as_duplicate": result.skipped_as_duplicate,
                },
                as_json=as_json,
            )
            return
        lines = _lines(sys.stdin.buffer)
        jobs = ((typed_args(on.client.workers, kind, encoded), opts) for encoded in lines)
        count = 0
        with on.engine.begin() as connection, progress("jobs inserted") as show_count:
            while batch := list(islice(jobs, BATCH)):
                count += on.client.insert_many_fast(connection, batch)
                show_count(count)
        show_one({"inserted": count, "kind": kind}, as_json=as_json)


def _time(at: str | None, delay: float | None) -> datetime | None:
    if delay is not None:
        return datetime.now(UTC) + timedelta(seconds=delay)
    if at is None:
        return None
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is not None:
        with contextlib.suppress(OverflowError):  # before the year 1, or after 9999
            return moment.astimezone(UTC)
    expected = "a time with its offset, such as 2026-12-24T18:00:00+01:00"
    raise CommandError(f"--at is {at!r}; expected {expected}", ExitCode.usage)


def _lines(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield json_object(f"line {number}", line)

"""`riverrun insert`: a job, or many, from the shell."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import click

from riverrun.cli.app import CommandError, ExitCode, option, target, target_options
from riverrun.cli.output import show_one
from riverrun.job import RawArgs
from riverrun.options import InsertOpts

BATCH = 1_000


@click.command
@click.argument("kind")
@click.argument("args", default="{}", metavar="[JSON|-]")
@option("--queue", "-q", help="The queue; the default one unless given.")
@option("--priority", type=click.IntRange(1, 4), help="1, the highest, to 4.")
@option("--max-attempts", type=click.IntRange(1, 32_767), help="How often it is tried at most.")
@option("--delay", type=click.FloatRange(min=0), help="Seconds until it may be worked.")
@option("--at", metavar="TIME", help="When it may be worked, such as 2026-12-24T18:00:00+01:00.")
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
    """Insert a job of KIND, its args a JSON object; or, with -, one for each line of stdin.

    All lines are one transaction: if one is refused, none is inserted.
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
            metadata=None if metadata is None else _object("--metadata", metadata),
        )
        if args != "-":
            result = on.client.insert(
                on.engine, RawArgs(kind=kind, encoded=_object("the args", args)), opts
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
        jobs = ((RawArgs(kind=kind, encoded=each), opts) for each in _lines(sys.stdin))
        count = 0
        with on.engine.begin() as connection:
            while batch := list(islice(jobs, BATCH)):
                count += on.client.insert_many_fast(connection, batch)
                if sys.stderr.isatty():
                    click.echo(f"\r{count:,} jobs", err=True, nl=False)
        if sys.stderr.isatty():
            click.echo(err=True)
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
    if moment is None or moment.tzinfo is None:
        expected = "a time with its offset, such as 2026-12-24T18:00:00+01:00"
        raise CommandError(f"--at is {at!r}; expected {expected}", ExitCode.usage)
    return moment


def _object(name: str, text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        problem = f'{name}: expected a JSON object, such as \'{{"to": "alice@example.com"}}\''
        raise CommandError(problem, ExitCode.usage)
    return value


def _lines(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _object(f"line {number}", line)

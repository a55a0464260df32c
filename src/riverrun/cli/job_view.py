"""Print one job for people: its columns, args, output, log and attempts, with line breaks."""

from collections.abc import Iterator

import click

from riverrun.cli.output import ago, text_of
from riverrun.jobs.parts import Failure, json_lines, parts_of
from riverrun.jobs.row import JobRow
from riverrun.logs.text import printable, printable_lines
from riverrun.logs.traces import folded

_BLOCK_MAX = 20_000
"""Longest block that is printed, in characters; `--json` prints all of it."""


def show_job(job: JobRow, *, full: bool) -> None:
    """Print a job for people.

    Args:
        job: The job.
        full: Whether tracebacks keep their library frames.
    """
    for line in _lines(job, full=full):
        click.echo(line)


def _lines(job: JobRow, *, full: bool) -> Iterator[str]:
    parts = parts_of(job)
    yield f"job {job.id}  {printable(job.kind)}  {job.state}"
    for name, value in _facts(job):
        yield f"  {name:<10}  {value}"
    yield from _block("args", json_lines(job.args))
    if parts.output is not None:
        yield from _block("output", json_lines(parts.output))
    if parts.metadata:
        yield from _block("metadata", json_lines(parts.metadata))
    for log in parts.logs:
        yield from _block(f"log of attempt {_number(log.attempt)}", log.text)
    for failure in parts.failures:
        yield from _attempt(failure, full=full)


def _facts(job: JobRow) -> Iterator[tuple[str, str]]:
    yield "queue", f"{printable(job.queue)}, priority {job.priority}"
    yield "attempts", f"{job.attempt} of {job.max_attempts}"
    for name, moment in (
        ("inserted", job.created_at),
        ("scheduled", job.scheduled_at),
        ("attempted", job.attempted_at),
        ("finalized", job.finalized_at),
    ):
        if moment is not None:
            yield name, f"{ago(moment)} ({moment.isoformat(sep=' ', timespec='milliseconds')})"
    if job.attempted_by:
        yield "worked by", printable(job.attempted_by[-1])
    if job.tags:
        yield "tags", ", ".join(map(printable, job.tags))
    if job.unique_key is not None:
        states = text_of(job.unique_states or ())
        yield "unique", f"{job.unique_key.hex()} while {states}"


def _attempt(failure: Failure, *, full: bool) -> Iterator[str]:
    title = f"attempt {_number(failure.attempt)} failed"
    if failure.at is not None:
        title = f"{title} {ago(failure.at)}"
    trace, text = failure.trace, failure.error
    # A traceback usually ends with the error's text; do not print that twice.
    shown = trace if full else folded(trace)
    yield from _block(title, shown if text and text in shown else f"{text}\n{shown}".strip())


def _number(attempt: int | None) -> str:
    return "?" if attempt is None else str(attempt)


def _block(title: str, text: str) -> Iterator[str]:
    yield ""
    yield title
    if len(text) > _BLOCK_MAX:
        text = f"{text[:_BLOCK_MAX]}\n... {len(text) - _BLOCK_MAX:,} more characters; see --json"
    for line in printable_lines(text.expandtabs()).splitlines() or [""]:
        yield f"  {line}".rstrip()

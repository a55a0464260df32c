"""Print one job for people: its columns, args, output, log and attempts, with line breaks."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from riverrun.cli.output import ago, text_of
from riverrun.execution.job_log import KEY as LOG_KEY
from riverrun.jobs.row import JobRow
from riverrun.logs.text import printable, printable_lines
from riverrun.logs.traces import folded

_OUTPUT_KEY = "output"

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
    yield f"job {job.id}  {printable(job.kind)}  {job.state}"
    for name, value in _facts(job):
        yield f"  {name:<10}  {value}"
    yield from _block("args", _json(job.args))
    metadata = dict(job.metadata)
    output, logs = metadata.pop(_OUTPUT_KEY, None), metadata.pop(LOG_KEY, None)
    if output is not None:
        yield from _block("output", _json(output))
    if metadata:
        yield from _block("metadata", _json(metadata))
    for entry in logs if isinstance(logs, list) else []:
        if isinstance(entry, Mapping):
            title = f"log of attempt {printable(entry.get('attempt', '?'))}"
            yield from _block(title, str(entry.get("log", "")))
    for error in job.errors:
        yield from _attempt(error, full=full)


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


def _attempt(error: Mapping[str, Any], *, full: bool) -> Iterator[str]:
    title = f"attempt {printable(error.get('attempt', '?'))} failed"
    if (moment := _time(error.get("at"))) is not None:
        title = f"{title} {ago(moment)}"
    trace = str(error.get("trace") or "")
    text = str(error.get("error") or "")
    # A traceback usually ends with the error's text; do not print that twice.
    shown = trace if full else folded(trace)
    yield from _block(title, shown if text and text in shown else f"{text}\n{shown}".strip())


def _time(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _block(title: str, text: str) -> Iterator[str]:
    yield ""
    yield title
    if len(text) > _BLOCK_MAX:
        text = f"{text[:_BLOCK_MAX]}\n... {len(text) - _BLOCK_MAX:,} more characters; see --json"
    for line in printable_lines(text.expandtabs()).splitlines() or [""]:
        yield f"  {line}".rstrip()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)

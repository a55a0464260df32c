"""`riverrun queues`: look at queues, pause and resume them."""

from collections import defaultdict
from typing import Any

import attrs
import click

from riverrun.cli.app import target, target_options
from riverrun.cli.output import show
from riverrun.states import JobState
from riverrun.verbs.queues import QueueRow
from riverrun.verbs.status import count_jobs

STATES = (JobState.available, JobState.running, JobState.retryable, JobState.scheduled)


@click.group()
def queues() -> None:
    """Look at queues, pause and resume them."""


@queues.command(name="list")
@target_options
def list_(app: str | None, database_url: str | None, schema: str | None, as_json: bool) -> None:
    """List queues: whether each is paused, and how many jobs of it wait."""
    with target(app, database_url, schema) as on:
        known = {row.name: row for row in on.client.queues.list(on.engine, limit=10_000)}
        counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(STATES, 0))
        for each in count_jobs(on.engine, schema=on.schema):
            counts[each.queue][each.state] = each.count
    rows: list[dict[str, Any]] = []
    for name in sorted({*known, *counts}):
        row = known.get(name)
        rows.append(
            {
                "name": name,
                "paused_at": row and row.paused_at,
                "worked_at": row and row.updated_at,
                **counts[name],
            }
        )
    columns = ("name", "paused_at", "worked_at", *STATES)
    show(rows, columns, as_json=as_json, nothing="no queue was ever worked, and no job waits")


@queues.command()
@click.argument("name")
@target_options
def pause(
    name: str, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Claim nothing more from the queue NAME, in any client; "*" for all. What runs goes on."""
    with target(app, database_url, schema) as on:
        _show(on.client.queues.pause(on.engine, name), as_json=as_json)


@queues.command()
@click.argument("name")
@target_options
def resume(
    name: str, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Claim from the queue NAME again; "*" for all."""
    with target(app, database_url, schema) as on:
        _show(on.client.queues.resume(on.engine, name), as_json=as_json)


def _show(rows: list[QueueRow], *, as_json: bool) -> None:
    values = [attrs.asdict(row) for row in rows]
    show(values, ("name", "paused_at", "updated_at"), as_json=as_json, nothing="no queue")

"""`riverrun queues`: list, pause and resume queues."""

from collections import defaultdict
from typing import Any

import attrs
import click

from riverrun.cli.app import Target, target, target_options, watch_option
from riverrun.cli.output import show, watched
from riverrun.jobs.states import JobState
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.verbs.queues import QueueRow
from riverrun.verbs.status import count_jobs, last_worked, list_clients

STATES = (JobState.available, JobState.running, JobState.retryable, JobState.scheduled)
COLUMNS = ("name", "paused_at", "clients", "last_worked_at", *STATES)


@click.group()
def queues() -> None:
    """List, pause and resume queues."""


@queues.command(name="list")
@watch_option
@target_options
def list_(
    watch: float | None,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """List queues: which clients work each, when it was last worked, and how many jobs wait.

    Only living clients of riverrun are listed; River's Go clients do not record their queues.
    """
    with target(app, database_url, schema) as on:
        for _ in watched(watch):
            rows = queue_rows(on)
            if not as_json:
                for row in rows:
                    row["clients"] = ", ".join(row["clients"])
            nothing = "no queue was ever worked, and no job waits"
            show(rows, COLUMNS, as_json=as_json, nothing=nothing)


def queue_rows(on: Target) -> list[dict[str, Any]]:
    """Return a row for each queue that a client works or has worked, or that has jobs."""
    known = {row.name: row for row in on.client.queues.list(on.engine, limit=10_000)}
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(STATES, 0))
    for group in count_jobs(on.engine, schema=on.schema):
        counts[group.queue][group.state] = group.count
    clients: dict[str, list[str]] = defaultdict(list)
    for client in list_clients(on.engine, schema=on.schema):
        if client.silent_s <= DEAD_S:
            for name in client.queues:
                clients[name].append(client.id)
    names = sorted({*known, *counts, *clients})
    worked = last_worked(on.engine, names, schema=on.schema)
    return [
        {
            "name": name,
            "paused_at": known[name].paused_at if name in known else None,
            "clients": clients[name],
            "last_worked_at": worked[name],
            **counts[name],
        }
        for name in names
    ]


@queues.command()
@click.argument("name")
@target_options
def pause(
    name: str, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Pause the queue NAME, or "*" for all, in every client. Running jobs go on."""
    with target(app, database_url, schema) as on:
        _show(on.client.queues.pause(on.engine, name), as_json=as_json)


@queues.command()
@click.argument("name")
@target_options
def resume(
    name: str, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Resume the queue NAME, or "*" for all."""
    with target(app, database_url, schema) as on:
        _show(on.client.queues.resume(on.engine, name), as_json=as_json)


def _show(rows: list[QueueRow], *, as_json: bool) -> None:
    values = [attrs.asdict(row) for row in rows]
    show(values, ("name", "paused_at", "updated_at"), as_json=as_json, nothing="no queue")

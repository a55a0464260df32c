"""`riverrun periodic`: list, pause, resume and run periodic jobs."""

import attrs
import click

from riverrun.cli.app import target, target_options
from riverrun.cli.output import show
from riverrun.verbs.periodic import PeriodicRow

COLUMNS = (
    "id",
    "next_run_at",
    "last_run_at",
    "schedule",
    "zone",
    "kind",
    "queue",
    "paused_at",
    "run_now_at",
    "overdue",
)


@click.group()
def periodic() -> None:
    """List, pause, resume and run periodic jobs that have an id."""


@periodic.command(name="list")
@target_options
def list_(app: str | None, database_url: str | None, schema: str | None, as_json: bool) -> None:
    """List the periodic jobs that have an id: when each runs next, and when it ran last."""
    with target(app, database_url, schema) as on:
        rows = on.client.list_periodic(on.engine, limit=10_000)
    _show(rows, as_json=as_json)


@periodic.command()
@click.argument("periodic_id", metavar="ID")
@target_options
def pause(
    periodic_id: str, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Skip the runs of the periodic job ID, until it is resumed."""
    with target(app, database_url, schema) as on:
        row = on.client.pause_periodic(on.engine, periodic_id)
    _show([row], as_json=as_json)


@periodic.command()
@click.argument("periodic_id", metavar="ID")
@target_options
def resume(
    periodic_id: str, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Let the periodic job ID run again, at its next time."""
    with target(app, database_url, schema) as on:
        row = on.client.resume_periodic(on.engine, periodic_id)
    _show([row], as_json=as_json)


@periodic.command()
@click.argument("periodic_id", metavar="ID")
@target_options
def run(
    periodic_id: str, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Ask the leader to insert a job of the periodic job ID now. Its schedule does not move."""
    with target(app, database_url, schema) as on:
        row = on.client.run_periodic_now(on.engine, periodic_id)
    _show([row], as_json=as_json)


def _show(rows: list[PeriodicRow], *, as_json: bool) -> None:
    values = [attrs.asdict(row) for row in rows]
    show(values, COLUMNS, as_json=as_json, nothing="no periodic job has an id")

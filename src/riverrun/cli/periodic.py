"""`riverrun periodic`: show when periodic jobs run next."""

import click

from riverrun.cli.app import target, target_options
from riverrun.cli.output import show
from riverrun.verbs.periodic import list_periodic


@click.group()
def periodic() -> None:
    """Show periodic jobs."""


@periodic.command(name="list")
@target_options
def list_(app: str | None, database_url: str | None, schema: str | None, as_json: bool) -> None:
    """List the periodic jobs that have an id: when each runs next, and when it ran last."""
    with target(app, database_url, schema) as on:
        rows = list_periodic(on.engine, limit=10_000, schema=on.schema)
    columns = ("id", "next_run_at", "last_run_at")
    show(rows, columns, as_json=as_json, nothing="no periodic job has an id")

"""`riverrun jobs`: look at jobs, cancel, retry and delete them."""

from collections.abc import Callable
from typing import Any

import attrs
import click

from riverrun.cli.app import CommandError, ExitCode, Target, option, target, target_options
from riverrun.cli.output import show, show_json, show_one
from riverrun.errors import RiverrunError
from riverrun.job import JobRow
from riverrun.job_list import JobListParams, JobOrder
from riverrun.states import JobState

COLUMNS = ("id", "kind", "queue", "state", "attempt", "max_attempts", "scheduled_at", "args")
BATCH = 1_000

_IDS = click.argument("ids", nargs=-1, type=int, required=True, metavar="ID...")


@click.group()
def jobs() -> None:
    """Look at jobs, cancel, retry and delete them."""


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    states = click.Choice([state.value for state in JobState])
    for declare in (
        option("--tag", "tags", multiple=True, help="With all of these tags."),
        option("--queue", "-q", "queues", multiple=True, help="In one of these queues."),
        option("--kind", "-k", "kinds", multiple=True, help="Of one of these kinds."),
        option("--state", "-s", "states", multiple=True, type=states, help="In such a state."),
    ):
        command = declare(command)
    return command


@jobs.command(name="list")
@_filters
@option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@option(
    "--order-by",
    type=click.Choice([order.value for order in JobOrder]),
    default=JobOrder.id.value,
    show_default=True,
)
@option("--descending/--ascending", default=False, help="Whether the last comes first.")
@option("--after", metavar="CURSOR", help="Go on where a list ended: its cursor.")
@target_options
def list_(
    states: tuple[str, ...],
    kinds: tuple[str, ...],
    queues: tuple[str, ...],
    tags: tuple[str, ...],
    limit: int,
    order_by: str,
    descending: bool,
    after: str | None,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """List jobs; with --json a line each, and the cursor of the next ones last."""
    with target(app, database_url, schema) as on:
        params = attrs.evolve(
            _params(states, kinds, queues, tags),
            limit=limit,
            order_by=JobOrder(order_by),
            descending=descending,
            after=after,
        )
        found = on.client.list_jobs(on.engine, params)
    show(found.jobs, COLUMNS, as_json=as_json, nothing="no such jobs")
    if len(found.jobs) == limit:
        if as_json:
            show_json({"cursor": found.cursor})
        else:
            click.echo(f"more: --after {found.cursor}")


@jobs.command()
@click.argument("job_id", type=int, metavar="ID")
@target_options
def get(
    job_id: int, app: str | None, database_url: str | None, schema: str | None, as_json: bool
) -> None:
    """Show all of a job."""
    with target(app, database_url, schema) as on:
        job = on.client.get(on.engine, job_id)
    show_one(attrs.asdict(job, recurse=False), as_json=as_json)


@jobs.command()
@_IDS
@target_options
def cancel(
    ids: tuple[int, ...],
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Cancel jobs; one that runs is told to end."""
    with target(app, database_url, schema) as on:
        _each(on, ids, on.client.cancel, as_json=as_json)


@jobs.command()
@_IDS
@target_options
def retry(
    ids: tuple[int, ...],
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Make jobs available now, whatever came of them before."""
    with target(app, database_url, schema) as on:
        _each(on, ids, on.client.retry, as_json=as_json)


@jobs.command()
@click.argument("ids", nargs=-1, type=int, metavar="[ID...]")
@_filters
@option("--yes", "-y", is_flag=True, help="Do not ask.")
@target_options
def delete(
    ids: tuple[int, ...],
    states: tuple[str, ...],
    kinds: tuple[str, ...],
    queues: tuple[str, ...],
    tags: tuple[str, ...],
    yes: bool,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Delete jobs by id, or all that the filters name; never one that runs."""
    params = _params(states, kinds, queues, tags)
    if bool(ids) == params.filters:
        raise click.UsageError("name ids, or filters such as --state discarded")
    with target(app, database_url, schema) as on:
        if ids:
            _each(on, ids, on.client.delete, as_json=as_json)
            return
        if not yes:
            click.confirm("Delete every job that these filters name?", abort=True, err=True)
        count = 0
        while batch := on.client.delete_many(on.engine, attrs.evolve(params, limit=BATCH)):
            count += len(batch)
            if len(batch) < BATCH:
                break
            click.echo(f"{count:,} deleted", err=True)
    show_one({"deleted": count}, as_json=as_json)


def _params(
    states: tuple[str, ...],
    kinds: tuple[str, ...],
    queues: tuple[str, ...],
    tags: tuple[str, ...],
) -> JobListParams:
    return JobListParams(
        states=[JobState(state) for state in states] or None,
        kinds=kinds or None,
        queues=queues or None,
        tags_all=tags or None,
    )


def _each(
    on: Target, ids: tuple[int, ...], verb: Callable[[Any, int], JobRow], *, as_json: bool
) -> None:
    """Do the verb to each job, also if one before it could not be done; say what came of all."""
    rows: list[JobRow] = []
    failed: list[RiverrunError] = []
    for job_id in ids:
        try:
            rows.append(verb(on.engine, job_id))
        except RiverrunError as error:
            failed.append(error)
    if rows:
        show(rows, COLUMNS, as_json=as_json)
    if failed:
        raise CommandError("; ".join(map(str, failed)), ExitCode.cut_off) from failed[0]

"""`riverrun jobs`: list, show, cancel, retry and delete jobs."""

from collections.abc import Callable
from typing import Any

import attrs
import click
from sqlalchemy import Engine

from riverrun.cli.app import (
    JOB_ID,
    CommandError,
    ExitCode,
    F,
    Target,
    json_object,
    option,
    reported,
    target,
    target_options,
    watch_option,
)
from riverrun.cli.job_view import show_job
from riverrun.cli.output import show, show_json, show_one, watched
from riverrun.client.client import Client
from riverrun.errors import RiverrunError
from riverrun.jobs.listing import JobListParams, JobOrder
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.queries.filters import criteria
from riverrun.verbs.read import count_listed, list_briefs

COLUMNS = ("id", "kind", "queue", "state", "attempt", "max_attempts", "scheduled_at", "args")
COUNT_MAX = 10_000
"""Maximum number of jobs that are counted before the command asks for confirmation."""

WAITING = {JobState.available, JobState.pending, JobState.retryable, JobState.scheduled}

_Verb = Callable[[Engine, int], JobRow]


@click.group()
def jobs() -> None:
    """List, show, cancel, retry and delete jobs."""


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    states = click.Choice([state.value for state in JobState])
    for declare in (
        _filter("--tag", "tags", help="With all of these tags."),
        _filter("--queue", "-q", "queues", help="In one of these queues."),
        _filter("--kind", "-k", "kinds", help="Of one of these kinds."),
        _filter("--state", "-s", "states", type=states, help="In such a state."),
    ):
        command = declare(command)
    return command


def _filter(long: str, *names: str, **settings: Any) -> Callable[[F], F]:
    """Declare a filter, with a variable of its own: `riverrun work` uses `RIVERRUN_QUEUE`."""
    variable = f"RIVERRUN_JOBS_{long.removeprefix('--').upper()}"
    return option(long, *names, multiple=True, envvar=variable, **settings)


@jobs.command(name="list")
@_filters
@option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@option(
    "--order-by",
    type=click.Choice([order.value for order in JobOrder]),
    help="Default: finalized_at if all states are final, else id.",
)
@option(
    "--descending/--ascending",
    default=None,
    help="Default: descending; ascending if only states of waiting or running jobs are asked for.",
)
@option("--after", metavar="CURSOR", help="Continue after a former page, by its cursor.")
@option("--args", "of_args", metavar="JSON", help="Whose args contain this JSON object.")
@option("--client", metavar="ID", help="Claimed last by this client.")
@option("--text", metavar="TEXT", help="With this text in kind, args or last error.")
@option("--errors", is_flag=True, help="Show the first line of each job's last error.")
@watch_option
@target_options
def list_(
    states: tuple[str, ...],
    kinds: tuple[str, ...],
    queues: tuple[str, ...],
    tags: tuple[str, ...],
    limit: int,
    order_by: str | None,
    descending: bool | None,
    after: str | None,
    of_args: str | None,
    client: str | None,
    text: str | None,
    errors: bool,
    watch: float | None,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """List jobs, newest first.

    --json prints one line per job, and the cursor of the next page if there may be one.

    --text looks at 10,000 jobs, and --client at 20,000: the first ones in the order of the list.
    Continue with --after to look further.
    """
    chosen = {JobState(state) for state in states}
    final = bool(chosen) and chosen <= FINAL_STATES
    active = bool(chosen) and chosen <= WAITING | {JobState.running}
    order = order_by or (JobOrder.finalized_at if final else JobOrder.id)
    with target(app, database_url, schema) as on:
        params = attrs.evolve(
            _params(states, kinds, queues, tags),
            limit=limit,
            order_by=JobOrder(order),
            descending=not active if descending is None else descending,
            after=after,
            args=None if of_args is None else json_object("--args", of_args),
            client=client,
            text=text,
        )
        if as_json:
            page = on.client.list_jobs(on.engine, params)
            show(page.jobs, COLUMNS, as_json=True)
            if page.more:
                show_json({"cursor": page.cursor})
            return
        for _ in watched(watch):
            _show_briefs(on, params, errors=errors)


def _show_briefs(on: Target, params: JobListParams, *, errors: bool) -> None:
    found = list_briefs(on.engine, params, errors=errors, schema=on.schema)
    columns = [*COLUMNS, *(["last_error"] if errors else [])]
    if params.order_by is JobOrder.finalized_at:
        columns[columns.index("scheduled_at")] = "finalized_at"
    rows = []
    for job in found.jobs:
        row = attrs.asdict(job)
        if job.args is None:
            row["args"] = f"({job.args_bytes:,} bytes)"
        row["last_error"] = (job.last_error or "").partition("\n")[0]
        rows.append(row)
    show(rows, columns, as_json=False, nothing="no such jobs")
    if found.more:
        searched = "" if found.window is None else f"searched {found.window:,} jobs; "
        click.echo(f"{searched}more: --after {found.cursor}")


@jobs.command()
@click.argument("job_id", type=JOB_ID, metavar="ID")
@option("--full", is_flag=True, help="Show the library frames of tracebacks too.")
@target_options
def get(
    job_id: int,
    full: bool,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Show everything about a job: its columns, args, output, log, and each failed attempt."""
    with target(app, database_url, schema) as on:
        job = on.client.get(on.engine, job_id)
    if as_json:
        show_json(attrs.asdict(job, recurse=False))
    else:
        show_job(job, full=full)


def _bulk(command: Callable[..., Any]) -> Callable[..., Any]:
    for declare in (
        target_options,
        option("--yes", "-y", is_flag=True, help="Do not ask."),
        _filters,
        click.argument("ids", nargs=-1, type=JOB_ID, metavar="[ID...]"),
    ):
        command = declare(command)
    return command


@jobs.command()
@_bulk
def cancel(**options: Any) -> None:
    """Cancel jobs by id, or all that match the filters; a running job is asked to stop."""
    _do("cancel", "cancelled", lambda client: (client.cancel, client.cancel_where), **options)


@jobs.command()
@_bulk
def retry(**options: Any) -> None:
    """Make jobs available now, by id, or all that match the filters; never a running one."""
    _do("retry", "retried", lambda client: (client.retry, client.retry_where), **options)


@jobs.command()
@_bulk
def delete(**options: Any) -> None:
    """Delete jobs by id, or all that match the filters; never a running one."""
    _do("delete", "deleted", lambda client: (client.delete, client.delete_where), **options)


def _do(
    name: str,
    done: str,
    verbs_of: Callable[[Client], tuple[_Verb, Callable[..., int]]],
    *,
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
    with reported():
        params = _params(states, kinds, queues, tags)
    # Filters of the environment do not choose jobs by themselves, and ids need none.
    if bool(ids) == any(map(_is_typed, ("states", "kinds", "queues", "tags"))):
        raise click.UsageError("name ids, or filters such as --state discarded")
    with target(app, database_url, schema) as on:
        verb, verb_of_all = verbs_of(on.client)
        if ids:
            _each(on, ids, verb, as_json=as_json)
            return
        if not yes:
            count = count_listed(on.engine, params, most=COUNT_MAX + 1, schema=on.schema)
            number = f"more than {COUNT_MAX:,}" if count > COUNT_MAX else f"{count:,}"
            question = f"{name.capitalize()} {number} job{'' if count == 1 else 's'}?"
            if count and not _agreed(question):
                problem = f"no job was {done}: the answer was not yes; --yes asks no question"
                raise CommandError(problem, ExitCode.cut_off)
        count = verb_of_all(on.engine, *criteria(params)) if yes or count else 0
    show_one({done: count}, as_json=as_json)


def _agreed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C, or nobody is there to answer
        click.echo(err=True)
        return False


def _is_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


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


def _each(on: Target, ids: tuple[int, ...], verb: _Verb, *, as_json: bool) -> None:
    """Call `verb` for every id, also after a failure; then print the jobs and all errors."""
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

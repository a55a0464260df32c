"""`riverrun migrate`: migrate the schema without Alembic."""

import sys
from collections.abc import Sequence

import click

from riverrun.cli.app import (
    CommandError,
    ExitCode,
    Target,
    option,
    schema_option,
    target,
    target_options,
)
from riverrun.cli.output import show_json
from riverrun.errors import RiverrunError
from riverrun.migrations import LATEST, Line, current, validate
from riverrun.migrations import sql as script
from riverrun.migrations.lines import check_version
from riverrun.migrations.run import of_schema, walk
from riverrun.migrations.state import recorded, versions

_LINES = click.Choice([line.value for line in Line])
_LINE = option("--line", type=_LINES, help="Only this line.")


@click.group()
def migrate() -> None:
    """Migrate the database's schema, and show which versions it has."""


@migrate.command()
@_LINE
@option("--to", type=click.IntRange(1), help="The version to stop at; needs --line.")
@target_options
def up(
    line: str | None,
    to: int | None,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Migrate up. Default: both lines, to their newest versions."""
    with target(app, database_url, schema) as on:
        if to is not None:
            if line is None:
                raise click.UsageError("--to needs --line, such as --line main --to 7")
            with on.engine.connect() as connection:
                at = current(connection, Line(line), on.schema)
            if at > to:
                problem = f"line {line} is at {at} already; to go down, use `riverrun migrate down`"
                raise CommandError(problem, ExitCode.usage)
        _go(on, [Line(line)] if line else list(Line), to, down=False, as_json=as_json)


@migrate.command()
@option(
    "--line",
    type=_LINES,
    default=Line.main.value,
    show_default=True,
    help="The line to take down.",
)
@option(
    "--to",
    type=click.IntRange(0),
    help="The version to stop at. Default: one less than the current version.",
)
@target_options
def down(
    line: str,
    to: int | None,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Migrate down. Default: by one version. To version 0, a line is removed with its data."""
    with target(app, database_url, schema) as on:
        with on.engine.connect() as connection:
            at = max(recorded(connection, Line(line), on.schema), default=0)
        goal = max(at - 1, 0) if to is None else to
        if goal > at:
            problem = f"line {line} is at {at}, below {goal}; to go up, use `riverrun migrate up`"
            raise CommandError(problem, ExitCode.usage)
        _go(on, [Line(line)], goal, down=True, as_json=as_json)


@migrate.command(name="list")
@target_options
def list_(app: str | None, database_url: str | None, schema: str | None, as_json: bool) -> None:
    """List every version, and mark those that the database has."""
    with target(app, database_url, schema) as on, on.engine.connect() as connection:
        for line in Line:
            known = versions(connection, line, on.schema)
            for version in range(1, LATEST[line] + 1):
                if as_json:
                    show_json({"line": line, "version": version, "there": version in known})
                else:
                    click.echo(f"[{'x' if version in known else ' '}] {line} {version:03}")


@migrate.command(name="validate")
@target_options
def validate_(app: str | None, database_url: str | None, schema: str | None, as_json: bool) -> None:
    """Check that the schema is at the newest version; exit with 4 if it is not."""
    with target(app, database_url, schema) as on, on.engine.connect() as connection:
        missing = validate(connection, on.schema)
    if as_json:
        steps = [{"line": step.line, "version": step.version} for step in missing]
        show_json({"valid": not missing, "missing": steps})
        sys.exit(ExitCode.schema_behind if missing else ExitCode.ok)
    if missing:
        listed = ", ".join(f"{step.line} {step.version:03}" for step in missing)
        raise CommandError(
            f"missing: {listed}. Run `riverrun migrate up{of_schema(on.schema)}`",
            ExitCode.schema_behind,
        )
    click.echo("the schema is at the newest version")


@migrate.command(name="sql")
@schema_option
@option(
    "--line",
    type=_LINES,
    help="Only this line. Default: both, from an empty schema.",
)
@option("--from", "frm", type=click.IntRange(0), default=0, help="The version to start at.")
@option("--to", type=click.IntRange(0), help="The version to stop at. Default: the newest.")
def sql_(schema: str | None, line: str | None, frm: int, to: int | None) -> None:
    """Print the SQL of migrations instead of executing it."""
    if line is None and (frm or to is not None):
        raise click.UsageError("--from and --to need --line")
    try:
        for chosen in [Line(line)] if line else list(Line):
            click.echo(script(chosen, frm, LATEST[chosen] if to is None else to, schema))
    except RiverrunError as error:
        raise CommandError(str(error), ExitCode.usage) from error


def _go(on: Target, lines: Sequence[Line], goal: int | None, *, down: bool, as_json: bool) -> None:
    """Migrate version by version, and print each as soon as it is done: one may take long."""
    done = False
    for line in lines:
        to = None if goal is None else check_version(line, goal)
        for step in walk(on.engine, line=line, to=to, schema=on.schema, down=down):
            done = True
            _show("up" if step.up else "down", step.line, step.version, as_json=as_json)
    if not done and not as_json:
        click.echo("nothing to do")


def _show(what: str, line: Line, version: int, *, as_json: bool) -> None:
    if as_json:
        show_json({"did": what, "line": line, "version": version})
    else:
        click.echo(f"{what} {line} {version:03}")

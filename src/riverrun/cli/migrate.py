"""`riverrun migrate`: the schema, for those without Alembic."""

import click

from riverrun.cli.app import (
    CommandError,
    ExitCode,
    option,
    schema_option,
    target,
    where_options,
)
from riverrun.errors import RiverrunError
from riverrun.migrations import LATEST, Line, Step, current, validate
from riverrun.migrations import migrate as run
from riverrun.migrations import sql as script

_LINES = click.Choice([line.value for line in Line])
_LINE = option("--line", type=_LINES, help="Only this line.")


@click.group()
def migrate() -> None:
    """Bring the database's schema to a version, and say where it stands."""


@migrate.command()
@_LINE
@option("--to", type=click.IntRange(1), help="The version to stop at; needs --line.")
@where_options
def up(
    line: str | None,
    to: int | None,
    app: str | None,
    database_url: str | None,
    schema: str | None,
) -> None:
    """Migrate up: both lines to their newest version, unless told otherwise."""
    with target(app, database_url, schema) as on:
        if to is not None:
            if line is None:
                raise click.UsageError("--to needs --line, such as --line main --to 7")
            with on.engine.connect() as connection:
                at = current(connection, Line(line), on.schema)
            if at > to:
                raise CommandError(
                    f"line {line} is at {at} already; to go down: down", ExitCode.usage
                )
        _tell(run(on.engine, line=line, to=to, schema=on.schema))


@migrate.command()
@option(
    "--line",
    type=_LINES,
    default=Line.main.value,
    show_default=True,
    help="The line to take down.",
)
@option("--to", type=click.IntRange(0), help="The version to stop at; one less unless given.")
@where_options
def down(
    line: str, to: int | None, app: str | None, database_url: str | None, schema: str | None
) -> None:
    """Migrate down, by one version unless told otherwise; 0 removes a line with its data."""
    with target(app, database_url, schema) as on:
        with on.engine.connect() as connection:
            at = current(connection, Line(line), on.schema)
        goal = max(at - 1, 0) if to is None else to
        if goal > at:
            raise CommandError(
                f"line {line} is at {at}, below {goal}; to go up: up", ExitCode.usage
            )
        _tell(run(on.engine, line=line, to=goal, schema=on.schema))


@migrate.command(name="list")
@where_options
def list_(app: str | None, database_url: str | None, schema: str | None) -> None:
    """List every version, and mark those the database has."""
    with target(app, database_url, schema) as on, on.engine.connect() as connection:
        for line in Line:
            at = current(connection, line, on.schema)
            for version in range(1, LATEST[line] + 1):
                mark = "x" if version <= at else " "
                click.echo(f"[{mark}] {line} {version:03}")


@migrate.command(name="validate")
@where_options
def validate_(app: str | None, database_url: str | None, schema: str | None) -> None:
    """Say whether the schema is at the newest version; exit 4 if it is not."""
    with target(app, database_url, schema) as on, on.engine.connect() as connection:
        missing = validate(connection, on.schema)
    if missing:
        listed = ", ".join(f"{each.line} {each.version:03}" for each in missing)
        raise CommandError(f"missing: {listed}. Run `riverrun migrate up`", ExitCode.schema_behind)
    click.echo("the schema is at the newest version")


@migrate.command(name="sql")
@schema_option
@option(
    "--line",
    type=_LINES,
    help="Only this line; both from nothing unless given.",
)
@option("--from", "frm", type=click.IntRange(0), default=0, help="The version to start at.")
@option("--to", type=click.IntRange(0), help="The version to stop at; the newest if absent.")
def sql_(schema: str | None, line: str | None, frm: int, to: int | None) -> None:
    """Print the statements instead of executing them."""
    if line is None and (frm or to is not None):
        raise click.UsageError("--from and --to need --line")
    try:
        for each in [Line(line)] if line else list(Line):
            click.echo(script(each, frm, LATEST[each] if to is None else to, schema))
    except RiverrunError as error:
        raise CommandError(str(error), ExitCode.usage) from error


def _tell(steps: list[Step]) -> None:
    for step in steps:
        click.echo(f"{'up' if step.up else 'down'} {step.line} {step.version:03}")
    if not steps:
        click.echo("nothing to do")

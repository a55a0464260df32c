"""`riverrun migrate`: the schema, for those without Alembic."""

import click

from riverrun.cli.app import CommandError, ExitCode, database_engine
from riverrun.errors import RiverrunError
from riverrun.migrations import LATEST, Line, Step, current, validate
from riverrun.migrations import migrate as run
from riverrun.migrations import sql as script

_DATABASE = click.option(
    "--database-url",
    envvar=["RIVERRUN_DATABASE_URL", "DATABASE_URL"],
    required=True,
    metavar="URL",
    help="Such as postgresql://localhost/app; RIVERRUN_DATABASE_URL or DATABASE_URL unless given.",
)
_SCHEMA = click.option("--schema", help="The tables' schema; the search path's unless given.")
_LINE = click.option(
    "--line", type=click.Choice([line.value for line in Line]), help="Only this line."
)


@click.group()
def migrate() -> None:
    """Bring the database's schema to a version, and say where it stands."""


@migrate.command()
@_DATABASE
@_SCHEMA
@_LINE
@click.option("--to", type=click.IntRange(1), help="The version to stop at; needs --line.")
def up(database_url: str, schema: str | None, line: str | None, to: int | None) -> None:
    """Migrate up: both lines to their newest version, unless told otherwise."""
    with database_engine(database_url) as engine:
        if to is not None:
            if line is None:
                raise click.UsageError("--to needs --line, such as --line main --to 7")
            with engine.connect() as connection:
                at = current(connection, Line(line), schema)
            if at > to:
                raise CommandError(
                    f"line {line} is at {at} already; to go down: down", ExitCode.usage
                )
        _tell(run(engine, line=line, to=to, schema=schema))


@migrate.command()
@_DATABASE
@_SCHEMA
@click.option(
    "--line",
    type=click.Choice([line.value for line in Line]),
    default=Line.main.value,
    show_default=True,
    help="The line to take down.",
)
@click.option("--to", type=click.IntRange(0), help="The version to stop at; one less unless given.")
def down(database_url: str, schema: str | None, line: str, to: int | None) -> None:
    """Migrate down, by one version unless told otherwise; 0 removes a line with its data."""
    with database_engine(database_url) as engine:
        with engine.connect() as connection:
            at = current(connection, Line(line), schema)
        goal = max(at - 1, 0) if to is None else to
        if goal > at:
            raise CommandError(
                f"line {line} is at {at}, below {goal}; to go up: up", ExitCode.usage
            )
        _tell(run(engine, line=line, to=goal, schema=schema))


@migrate.command(name="list")
@_DATABASE
@_SCHEMA
def list_(database_url: str, schema: str | None) -> None:
    """List every version, and mark those the database has."""
    with database_engine(database_url) as engine, engine.connect() as connection:
        for line in Line:
            at = current(connection, line, schema)
            for version in range(1, LATEST[line] + 1):
                mark = "x" if version <= at else " "
                click.echo(f"[{mark}] {line} {version:03}")


@migrate.command(name="validate")
@_DATABASE
@_SCHEMA
def validate_(database_url: str, schema: str | None) -> None:
    """Say whether the schema is at the newest version; exit 4 if it is not."""
    with database_engine(database_url) as engine, engine.connect() as connection:
        missing = validate(connection, schema)
    if missing:
        listed = ", ".join(f"{each.line} {each.version:03}" for each in missing)
        raise CommandError(f"missing: {listed}. Run `riverrun migrate up`", ExitCode.schema_behind)
    click.echo("the schema is at the newest version")


@migrate.command(name="sql")
@_SCHEMA
@click.option(
    "--line",
    type=click.Choice([line.value for line in Line]),
    help="Only this line; both from nothing unless given.",
)
@click.option("--from", "frm", type=click.IntRange(0), default=0, help="The version to start at.")
@click.option("--to", type=click.IntRange(0), help="The version to stop at; the newest if absent.")
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

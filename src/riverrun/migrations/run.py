"""Runs migrations: plans the steps for a database, and takes and records each of them."""

import io
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import attrs
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, text

from riverrun.db.driver import lent
from riverrun.jobs.checks import check_schema
from riverrun.migrations.ddl import OWN_TRANSACTION, MigrationRefused, escaped, prefix, run
from riverrun.migrations.lines import LATEST, LINES_SINCE, Line, Step, check_version, steps
from riverrun.migrations.state import (
    complete,
    forget_above,
    guard,
    has_lines,
    recorded,
    schema_of_tables,
    versions,
)


@attrs.frozen
class Missing:
    """A version that a database lacks.

    Attributes:
        line: The line.
        version: The version.
    """

    line: Line
    version: int


def migrate(
    tx: Engine | Connection,
    *,
    line: Line | str | None = None,
    to: int | None = None,
    schema: str | None = None,
) -> list[Step]:
    """Migrate a database, up or down, and return the steps taken.

    With an Engine, or a Connection without an open transaction, each version has a transaction of
    its own. With an open transaction, all steps are part of it.

    Args:
        tx: The database: an Engine or a Connection.
        line: The line to migrate. Default: both.
        to: The version of `line` to end at. Default: the newest one, or a higher one that a newer
            release has already installed.
        schema: The schema of the tables. Default: the search path's.

    Raises:
        InvalidOption: If this release does not know the version.
        MigrationRefused: If `to` is given without `line`, if River's line would go below version 5
            while riverrun's is installed, if riverrun's would go up while River's is below 5, or if
            an open transaction would have to add a value to an enum that is older than itself.
    """
    return list(walk(tx, line=line, to=to, schema=schema))


def walk(
    tx: Engine | Connection,
    *,
    line: Line | str | None = None,
    to: int | None = None,
    schema: str | None = None,
    down: bool | None = None,
) -> Iterator[Step]:
    """Migrate like `migrate`, and yield each step once it is taken.

    Args:
        tx: As for `migrate`.
        line: As for `migrate`.
        to: As for `migrate`.
        schema: As for `migrate`.
        down: Whether to remove versions above `to`. Default: only if `to` is given.
    """
    check_schema(schema)
    if isinstance(tx, Engine):
        with tx.connect() as connection, lent(connection):
            # A listener of the host, such as one that sets the search path, may have begun one.
            connection.commit()
            yield from walk(connection, line=line, to=to, schema=schema, down=down)
            return
    if line is None:
        if to is not None:
            raise MigrationRefused(f"version {to} of which line? Pass line='main' or 'riverrun'")
        for one in Line:
            yield from walk(tx, line=one, schema=schema)
        return
    of = Line(line)
    goal = check_version(of, LATEST[of] if to is None else to)
    joined = tx.in_transaction()
    place = schema
    while True:
        with ExitStack() as stack:
            if not joined:
                stack.enter_context(tx.begin())
            # Processes that migrate at once, such as containers that start together, take turns.
            lock = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
            tx.execute(lock, {"name": f"riverrun.migrate.{schema or ''}"})
            if place is None:
                # CREATE TABLE without a schema uses the first schema of the search path, but the
                # existing tables may be in another.
                place = schema_of_tables(tx)
            path = path_to(tx, of, goal, place, down=to is not None if down is None else down)
            if not path:
                return
            context = MigrationContext.configure(tx, opts={OWN_TRANSACTION: not joined})
            if joined and _adds_to_enum(tx, path[0], place):
                problem = (
                    "version 4 adds to an enum, which a transaction that goes on to use it cannot "
                    "do; pass an Engine, or a Connection without an open transaction"
                )
                raise MigrationRefused(problem)
            take(Operations(context), path[:1], place)
        yield path[0]


def path_to(
    connection: Connection,
    line: Line,
    to: int,
    schema: str | None,
    *,
    down: bool = True,
) -> Sequence[Step]:
    """Return the steps that lead a database to version `to` of a line.

    If a version in between is missing, it and all versions above it are installed again.

    Args:
        connection: A Connection on the database.
        line: The line.
        to: The version to end at.
        schema: The schema of the tables; None for the search path's.
        down: Whether to remove versions above `to`.

    Raises:
        MigrationRefused: If a step would change what a later release has installed.
    """
    highest = max(recorded(connection, line, schema), default=0)
    at = complete(versions(connection, line, schema))
    path = steps(line, highest, to) if highest > to and down else steps(line, at, max(at, to))
    # This release does not know all versions that the steps would remove or install again.
    if path and highest > LATEST[line]:
        problem = (
            f"line {line} is at {highest}, and this release knows it up to {LATEST[line]}; use the "
            "release of riverrun that led the database there, or a later one"
        )
        raise MigrationRefused(problem)
    return path


def take(op: Operations, path: Sequence[Step], schema: str | None) -> None:
    """Take the steps that `path_to` returned."""
    if path and path[0].up and not op.get_context().as_sql:
        connection = op.get_bind()
        if has_lines(connection, schema) is not None:
            forget_above(connection, path[0].line, path[0].version - 1, schema)
    for step in path:
        apply(op, step, schema)


def validate(connection: Connection, schema: str | None = None) -> Sequence[Missing]:
    """Return the versions that this release knows and the database has no row for.

    Args:
        connection: A Connection on the database.
        schema: The schema of the tables. Default: the search path's.
    """
    return [
        Missing(line, version)
        for line in Line
        for known in [versions(connection, line, schema)]
        for version in range(1, LATEST[line] + 1)
        if version not in known
    ]


def sql(line: Line | str, frm: int, to: int, schema: str | None = None) -> str:
    """Return a script with the statements that lead a line from one version to another.

    Args:
        line: `Line.main` (River's) or `Line.riverrun`.
        frm: The version to start at; 0 for an empty schema.
        to: The version to end at.
        schema: The schema of the tables. Default: the search path's.

    Raises:
        InvalidOption: If this release does not know a version.
    """
    of = Line(line)
    check_schema(schema)
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        # With the default paramstyle, each per cent sign of the script would be doubled.
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "output_buffer": buffer},
    )
    with context.begin_transaction():
        path = steps(of, check_version(of, frm), check_version(of, to))
        run(Operations(context), schema, guard(of, frm))
        take(Operations(context), path, schema)
    return buffer.getvalue()


def apply(op: Operations, step: Step, schema: str | None) -> None:
    """Take one step and record it in river_migration, in the current transaction of `op`."""
    table = escaped(f"{prefix(schema)}river_migration")
    lines = step.line is Line.riverrun or step.version > LINES_SINCE
    if step.line is Line.riverrun and step.up and not op.get_context().as_sql:
        connection = op.get_bind()
        if not has_lines(connection, schema):
            problem = f"line riverrun needs line main at {LINES_SINCE} or later; migrate it first"
            raise MigrationRefused(problem)
    if step.up:
        step.run(op, schema)
        if not op.get_context().as_sql:
            # Look at the table itself: it may have been created by hand, in another form.
            lines = bool(has_lines(op.get_bind(), schema))
        if lines or step.version == LINES_SINCE:
            key, values = "line, version", f"'{step.line}', {step.version}"
        else:
            key, values = "version", str(step.version)
        op.execute(f"INSERT INTO {table} ({key}) VALUES ({values}) ON CONFLICT ({key}) DO NOTHING")
        return
    drops_lines = step == Step(Line.main, LINES_SINCE, False)
    if drops_lines and not op.get_context().as_sql:
        _refuse_to_drop(recorded(op.get_bind(), Line.riverrun, schema), schema)
    where = f" AND line = '{step.line}'" if lines or step.version == LINES_SINCE else ""
    op.execute(f"DELETE FROM {table} WHERE version = {step.version}{where}")
    step.run(op, schema)


def of_schema(schema: str | None) -> str:
    """Return ` --schema NAME` to append to a `riverrun migrate` command; "" for no schema."""
    return "" if schema is None else f" --schema {shlex.quote(schema)}"


def _refuse_to_drop(own: frozenset[int], schema: str | None) -> None:
    if own:
        problem = (
            f"line main cannot go below {LINES_SINCE} while line riverrun is there; first "
            f"`riverrun migrate down --line riverrun --to 0{of_schema(schema)}`"
        )
        raise MigrationRefused(problem)


def _adds_to_enum(connection: Connection, step: Step, schema: str | None) -> bool:
    if step != Step(Line.main, 4, True):
        return False
    statement = text(
        "SELECT xmin <> pg_current_xact_id()::xid AND NOT EXISTS (SELECT FROM pg_enum"
        " WHERE enumtypid = t.oid AND enumlabel = 'pending')"
        " FROM pg_type t WHERE t.oid = to_regtype(:name)"
    )
    name = f"{prefix(schema)}river_job_state"
    return bool(connection.execute(statement, {"name": name}).scalar_one_or_none())

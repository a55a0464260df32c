"""Reads which versions a database has: the rows of river_migration whose tables exist."""

from collections.abc import Collection
from itertools import count

from sqlalchemy import Connection, text

from riverrun.migrations.ddl import escaped, prefix
from riverrun.migrations.lines import MAKES, Line


def schema_of_tables(connection: Connection) -> str | None:
    """Return the schema in which the search path finds River's tables; None if it finds none."""
    statement = text(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = coalesce(to_regclass('river_migration'), to_regclass('river_job'))"
    )
    found: str | None = connection.execute(statement).scalar_one_or_none()
    return found


def current(connection: Connection, line: Line | str, schema: str | None = None) -> int:
    """Return the highest version of `line` that a database has without a gap below; 0 for none.

    Args:
        connection: A Connection on the database.
        line: `Line.main` (River's) or `Line.riverrun`.
        schema: The schema of the tables. Default: the search path's.
    """
    return complete(versions(connection, Line(line), schema))


def complete(known: Collection[int]) -> int:
    """Return the version before the first one that is not in `known`."""
    return next(version for version in count(1) if version not in known) - 1


def recorded(connection: Connection, line: Line, schema: str | None = None) -> frozenset[int]:
    """Return the versions of `line` that river_migration has rows for."""
    lines = has_lines(connection, schema)
    if lines is None or (not lines and line is not Line.main):
        return frozenset()
    where = " WHERE line = :line" if lines else ""
    table = escaped(f"{prefix(schema)}river_migration")
    statement = text(f"SELECT version FROM {table}{where}")
    params = {"line": line.value} if lines else {}
    return frozenset(connection.execute(statement, params).scalars())


def versions(connection: Connection, line: Line, schema: str | None = None) -> frozenset[int]:
    """Return the versions of `line` that have a row and whose tables exist."""
    rows = recorded(connection, line, schema)
    tables = {
        f"{prefix(schema)}{name}": v
        for (of, v), names in MAKES.items()
        for name in names
        if of is line and v in rows
    }
    statement = text(
        "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(name) IS NULL"
    )
    gone = connection.execute(statement, {"names": list(tables)}).scalars() if tables else ()
    return rows - {tables[name] for name in gone}


def has_lines(connection: Connection, schema: str | None) -> bool | None:
    """Return whether river_migration has the column `line`; None if there is no such table."""
    statement = text(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'line'"
        " AND NOT attisdropped) FROM pg_class c WHERE c.oid = to_regclass(:name)"
    )
    name = f"{prefix(schema)}river_migration"
    found: bool | None = connection.execute(statement, {"name": name}).scalar_one_or_none()
    return found


def forget_above(connection: Connection, line: Line, version: int, schema: str | None) -> None:
    """Delete the rows of `line` above `version`: versions above a gap are installed again."""
    where = " AND line = :line" if has_lines(connection, schema) else ""
    table = escaped(f"{prefix(schema)}river_migration")
    statement = text(f"DELETE FROM {table} WHERE version > :version{where}")
    params = {"version": version} | ({"line": line.value} if where else {})
    connection.execute(statement, params)


def guard(line: Line, version: int) -> str:
    """Return a statement for a script that fails unless `line` is at `version`."""
    stands = (
        "SELECT count(*) INTO stands FROM (SELECT version, row_number() OVER (ORDER BY version)"
        " AS n FROM {s}river_migration"
    )
    without = f"{stands}) AS r WHERE version = n;" if line is Line.main else "NULL;"
    return f"""
        DO $body$
        DECLARE
            stands bigint DEFAULT 0;
        BEGIN
            IF to_regclass('{{s}}river_migration') IS NULL THEN
                NULL;
            ELSIF EXISTS (
                SELECT FROM pg_attribute
                WHERE attrelid = to_regclass('{{s}}river_migration')
                    AND attname = 'line' AND NOT attisdropped
            )
            THEN
                {stands} WHERE line = '{line}') AS r WHERE version = n;
            ELSE
                {without}
            END IF;
            IF stands <> {version} THEN
                RAISE EXCEPTION USING
                    MESSAGE = 'this script starts at version {version} of line {line}, and the '
                        || 'database is at ' || stands,
                    HINT = 'Print the script again, from the version that the database has.';
            END IF;
        END;
        $body$
    """

"""The tests' schemas: their names, `t_7`, or `User Data 7` where the run is to try awkward ones.

Each test has a schema of its own, so what it takes to make one is paid two thousand times. The
migrations take twice as long as the tables that come of them: they make what a later version
changes. So one schema is migrated, and what PostgreSQL says of it makes the others.
"""

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

from sqlalchemy import URL, make_url

from riverrun.embedded import PostgresNotFound, find_programs

AWKWARD = os.environ.get("RIVERRUN_TEST_SCHEMA", "")
"""What every schema's name begins with, such as `User Data`; empty for plain names."""

DECOY = "decoy"
"""A schema that, where names are awkward, is before all others on the search path, and empty."""

ORIGINAL = "riverrun_original"
"""The schema that the migrations have made, and the others are copies of."""

_HERE = str(Path(__file__).parent)
_numbers = count(1)


class QuotedName(str):
    """A schema's name, which in a test's f-string is the quoted identifier.

    So `f"SELECT ... FROM {schema}.river_job"` is right for every name. Formatted by the library,
    and in every other way, it is the name itself; `{schema!s}` is too.
    """

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        caller = sys._getframe(1).f_code.co_filename
        if not caller.startswith(_HERE):
            return format(str(self), spec)
        return quoted(self)


def new_schema_name(prefix: str) -> str:
    """Return a name that no other test of this process has; `prefix` begins a plain one."""
    number = next(_numbers)
    return QuotedName(f"{AWKWARD} {number}") if AWKWARD else f"{prefix}_{number}"


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def dump(url: URL, schema: str) -> str | None:
    """Return the statements that make `schema` as it is, or None where no `pg_dump` can say.

    It cannot where it is not installed, or older than the server.
    """
    try:
        program = find_programs() / "pg_dump"
    except PostgresNotFound:
        return None
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    options = ("--no-owner", "--no-privileges", "--inserts", f"--schema={schema}")
    try:
        done = subprocess.run(
            [program, *options, address], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    # Not what it sets: that would outlast it on the connection. The rest names every schema.
    passed_over = ("SET ", "SELECT pg_catalog.set_config(", "--", "\\")
    lines = (line for line in done.stdout.splitlines() if not line.startswith(passed_over))
    return "\n".join(line for line in lines if line)


def migrations_of(schema: str) -> str:
    """Return the statements with which the migrations make `schema`, to execute in one go."""
    from riverrun.migrations import LATEST, Line, sql

    script = "".join(sql(line, 0, LATEST[line], schema) for line in Line)
    script = script.replace("BEGIN;", "").replace("COMMIT;", "")
    # The migrations quote it; `dump` does not.
    return f"CREATE SCHEMA {schema};\n" + script.replace(quoted(schema), schema)


def search_path_options(*schemas: str) -> str:
    """Return the connection's `options` that set the search path to `schemas`."""
    names = ",".join(quoted(name) for name in schemas)
    return "-csearch_path=" + names.replace("\\", "\\\\").replace(" ", "\\ ")


def search_path_url(url: URL | str, *schemas: str) -> URL:
    """Return a URL whose connections have `schemas` as their search path."""
    return make_url(url).update_query_dict({"options": search_path_options(*schemas)})

"""`riverrun migrate`: the schema from the shell."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from riverrun import migrations
from riverrun.cli.main import main
from riverrun.migrations import LATEST, Line

UNREACHABLE = "postgresql://someone:secret-word@127.0.0.1:1/nowhere"


@pytest.fixture
def empty_schema(engine: Engine) -> Iterator[str]:
    """An empty schema."""
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA from_the_shell"))
    yield "from_the_shell"
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA from_the_shell CASCADE"))


def migrate(url: str | None, *arguments: str) -> Result:
    """Run `riverrun migrate` and return the result."""
    environment = {"RIVERRUN_DATABASE_URL": None, "DATABASE_URL": url}
    return CliRunner().invoke(main, ["migrate", *arguments], env=environment)


def test_up_list_validate_and_down(database_url: str, empty_schema: str) -> None:
    """The commands migrate up and down, and show the database's versions."""
    of = ("--schema", empty_schema)
    # A bare URL is SQLAlchemy 2.0's psycopg2; here it means psycopg 3.
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    behind = migrate(url, "validate", *of)
    assert behind.exit_code == 4
    assert "main 001" in behind.stderr
    assert "riverrun migrate up" in behind.stderr
    up = migrate(url, "up", *of)
    assert up.exit_code == 0, up.output
    assert "up main 008\nup riverrun 001\n" in up.stdout
    assert migrate(url, "up", *of).stdout == "nothing to do\n"
    assert migrate(url, "validate", *of).exit_code == 0
    assert migrate(url, "down", *of).stdout == "down main 008\n"
    listed = migrate(url, "list", *of).stdout.splitlines()
    assert listed[6:] == [
        "[x] main 007",
        "[ ] main 008",
        *(f"[x] riverrun {version:03}" for version in range(1, LATEST[Line.riverrun] + 1)),
    ]
    assert migrate(url, "up", *of, "--line", "main", "--to", "8").stdout == "up main 008\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("up", "--to", "7"), "--line"),
        (("up", "--line", "main", "--to", "9"), "0 to 8"),
        (("up", "--schema", "n" * 64), "a name of 1 to 63 bytes"),
        (("up", "--line", "other"), "other"),
        (("sql", "--from", "3"), "--line"),
        (("sql", "--line", "main", "--to", "99"), "0 to 8"),
    ],
)
def test_a_wrong_option_is_named(
    database_url: str, empty_schema: str, arguments: tuple[str, ...], expected: str
) -> None:
    """Wrong options are exit code 2 with a reason, and change nothing."""
    result = migrate(database_url, *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_sql_needs_no_database() -> None:
    """`sql` prints the statements of both lines without a connection."""
    result = migrate(None, "sql", "--schema", "jobs")
    assert result.exit_code == 0
    assert 'CREATE TABLE IF NOT EXISTS "jobs".river_job (' in result.stdout
    assert 'CREATE TABLE IF NOT EXISTS "jobs".riverrun_client (' in result.stdout


@pytest.mark.parametrize("command", ["up", "down", "list", "validate"])
def test_an_unreachable_database_is_named_without_its_password(command: str) -> None:
    """An unreachable database is exit code 3 and one line without the password."""
    done = subprocess.run(
        [sys.executable, "-m", "riverrun", "migrate", command],
        env={**os.environ, "RIVERRUN_DATABASE_URL": UNREACHABLE},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("Error: cannot reach the database: ")
    assert done.stderr.count("\n") == 1
    assert "secret-word" not in done.stdout + done.stderr


def test_a_url_that_cannot_be_read_is_reported() -> None:
    """An invalid URL is exit code 2."""
    result = migrate("nonsense", "up")
    assert result.exit_code == 2
    assert "database URL" in result.stderr


def test_a_missing_url_is_reported() -> None:
    """Without a URL, the error names the option."""
    result = migrate(None, "up")
    assert result.exit_code == 2
    assert "--database-url" in result.stderr


def test_json_for_machines(database_url: str, empty_schema: str) -> None:
    """With --json, steps, versions and the verdict are JSON."""
    of = ("--schema", empty_schema, "--json")

    def output(*arguments: str) -> list[object]:
        result = migrate(database_url, *arguments, *of)
        return [json.loads(line) for line in result.stdout.splitlines()]

    assert {"line": "riverrun", "version": 2} in output("validate")[0]["missing"]
    assert output("up")[0] == {"did": "up", "line": "main", "version": 1}
    assert output("up") == []
    assert output("validate") == [{"valid": True, "missing": []}]
    assert output("down") == [{"did": "down", "line": "main", "version": 8}]
    assert output("list")[7] == {"line": "main", "version": 8, "there": False}


def test_reports_each_version_when_it_is_done(
    database_url: str, empty_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that fails halfway has printed the versions that it reached."""

    def fail(*_: object) -> None:
        raise OperationalError("", {}, psycopg.errors.LockNotAvailable("canceled by lock timeout"))

    monkeypatch.setattr("riverrun.migrations.river.v003.upgrade", fail)
    result = migrate(database_url, "up", "--schema", empty_schema)
    assert result.stdout == "up main 001\nup main 002\n"
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the database: canceled by lock timeout\n",
    )


def test_leaves_a_newer_releases_versions(
    database_url: str, empty_schema: str, engine: Engine
) -> None:
    """`up` of an older release leaves a database alone that a newer one has migrated."""
    of = ("--schema", empty_schema)
    migrate(database_url, "up", *of)
    with engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {empty_schema}.river_migration (line, version) VALUES ('main', 9)")
        )
        library = migrations.migrate(connection, schema=empty_schema)
    result = migrate(database_url, "up", *of)
    assert (result.exit_code, result.stdout, library) == (0, "nothing to do\n", [])

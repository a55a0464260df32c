"""A database whose record of versions is not what it should be: filled, or refused with advice."""

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from migrations.test_migrations import actual, expected
from riverrun import verbs
from riverrun.cli.main import main
from riverrun.errors import SchemaMissing
from riverrun.jobs.args import RawArgs
from riverrun.migrations import LATEST, Line, current, migrate, sql, validate
from riverrun.migrations.run import MigrationRefused

JOBS = """
    INSERT INTO river_job (kind, state, finalized_at, unique_key, args, max_attempts)
    SELECT 'k', 'completed', now(), 'same', '{}', 5 FROM generate_series(1, 2)
"""


def forget(engine: Engine, *versions: int, line: Line = Line.main) -> None:
    """Delete rows of river_migration."""
    with engine.begin() as connection:
        connection.execute(
            text("DELETE FROM river_migration WHERE line = :line AND version = ANY(:versions)"),
            {"line": line.value, "versions": list(versions)},
        )


def run(engine: Engine, *arguments: str) -> tuple[int, str]:
    """Run `riverrun migrate` and return its exit code and output."""
    url = engine.url.render_as_string(hide_password=False)
    done = CliRunner().invoke(main, ["migrate", *arguments, "--database-url", url])
    return done.exit_code, done.output


@pytest.mark.parametrize("gap", [(1,), (2, 5), (4,), (5,), (6,), (7,), (3, 4, 5, 6, 7)])
def test_a_missing_version_is_made_with_what_stands_on_it(
    empty_database: Engine, gap: tuple[int, ...]
) -> None:
    """`migrate validate` names the gap, its advice works, and no job is lost."""
    migrate(empty_database)
    with empty_database.begin() as connection:
        connection.execute(text(JOBS))
    forget(empty_database, *gap)
    with empty_database.connect() as connection:
        assert current(connection, Line.main) == gap[0] - 1
    code, output = run(empty_database, "validate")
    assert (code, f"main {gap[0]:03}" in output, "Run `riverrun migrate up`" in output) == (
        (4, True, True)
    )
    assert run(empty_database, "up")[0] == 0
    assert run(empty_database, "validate")[0] == 0
    assert actual(empty_database) == expected()
    with empty_database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM river_job")) == 2


@pytest.mark.parametrize(
    "table",
    ["river_job", "river_leader", "river_queue", "river_notification", "riverrun_client"],
)
def test_a_table_that_was_dropped_is_made_again(empty_database: Engine, table: str) -> None:
    """The error's advice works even if river_migration has all versions."""
    migrate(empty_database)
    with empty_database.begin() as connection:
        connection.execute(text(f"DROP TABLE {table}"))
    if table == "river_job":
        with pytest.raises(SchemaMissing, match="riverrun migrate up"):
            verbs.insert(empty_database, RawArgs(kind="any_kind", encoded={}))
    assert run(empty_database, "validate")[0] == 4
    assert run(empty_database, "up")[0] == 0
    assert actual(empty_database) == expected()


def test_down_takes_down_what_is_there_around_a_gap(empty_database: Engine) -> None:
    """A line with a gap is taken down from its highest version, and up to below it."""
    migrate(empty_database, line="main")
    forget(empty_database, 5)
    assert run(empty_database, "up", "--line", "main", "--to", "3")[0] == 2
    assert run(empty_database, "down", "--line", "main", "--to", "6")[0] == 0
    with empty_database.connect() as connection:
        assert current(connection, Line.main) == 6
    assert run(empty_database, "down", "--line", "main", "--to", "0")[0] == 0
    assert actual(empty_database)["columns"] == []


def test_what_a_later_release_made_is_left_alone(empty_database: Engine) -> None:
    """A version that this release does not know is not taken down, nor is a gap below filled."""
    migrate(empty_database)
    with empty_database.begin() as connection:
        connection.execute(text("INSERT INTO river_migration (line, version) VALUES ('main', 9)"))
    assert migrate(empty_database) == []
    for arguments in (("down", "--line", "main"), ("down", "--line", "main", "--to", "7")):
        code, output = run(empty_database, *arguments)
        assert (code, "use the release" in output) == (2, True), output
    forget(empty_database, 7)
    with pytest.raises(MigrationRefused, match="line main is at 9"):
        migrate(empty_database)
    with empty_database.connect() as connection:
        assert [missing.version for missing in validate(connection)] == [7]


def test_advice_names_the_schema(empty_database: Engine) -> None:
    """The advice for tables in their own schema names that schema."""
    with empty_database.begin() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
    _, output = run(empty_database, "validate", "--schema", "jobs")
    assert "`riverrun migrate up --schema jobs`" in output
    assert run(empty_database, "up", "--schema", "jobs")[0] == 0
    code, output = run(empty_database, "down", "--line", "main", "--to", "4", "--schema", "jobs")
    assert code == 2
    assert "`riverrun migrate down --line riverrun --to 0 --schema jobs`" in output


@pytest.mark.parametrize("stands", [0, 3, 4, 6, 8])
def test_a_script_runs_from_its_own_version_alone(empty_database: Engine, stands: int) -> None:
    """A script for a database at version 7 fails on one that is elsewhere, and changes nothing."""
    script = sql("main", 7, 8)
    if stands:
        migrate(empty_database, line="main", to=stands)
    before = actual(empty_database)
    with empty_database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        cursor = connection.connection.cursor()
        with pytest.raises(Exception, match=f"version 7 of line main, .* is at {stands}"):
            cursor.execute(script)
        cursor.execute("ROLLBACK")
    assert actual(empty_database) == before
    migrate(empty_database, line="main", to=7)
    with empty_database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.connection.cursor().execute(script)
        assert current(connection, Line.main) == LATEST[Line.main]

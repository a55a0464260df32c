"""Where `op.riverrun_migrate` starts, and what it does if the database is at other versions."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ext.marks import needs_plugins
from ext.test_alembic import Host, ops
from migrations.test_migrations import actual, expected
from riverrun.migrations import Line, current, migrate
from riverrun.migrations.run import MigrationRefused

REVISION = """
import riverrun.migrations
from alembic import op

revision, down_revision = {revision!r}, {down!r}

def upgrade():
    op.riverrun_migrate({up})

def downgrade():
    op.riverrun_migrate({back})
"""


@pytest.fixture
def host(tmp_path: Path, empty_database: Engine, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on an empty database, with two revisions: an install by hand, and a step up."""
    monkeypatch.setenv("DATABASE_URL", "")
    host = Host(tmp_path, empty_database)
    write(tmp_path, "0001", None, "7, 1", "0, 0")
    write(tmp_path, "0002", "0001", "8, 3, frm=(7, 1)", "7, 1, frm=(8, 3)")
    return host


def write(folder: Path, revision: str, down: str | None, up: str, back: str) -> None:
    """Write a revision."""
    source = REVISION.format(revision=revision, down=down, up=up, back=back)
    (folder / "chain" / "versions" / f"{revision}.py").write_text(source)


def stands(engine: Engine) -> tuple[int, int]:
    """Return the versions of both lines."""
    with engine.connect() as connection:
        return current(connection, Line.main), current(connection, Line.riverrun)


def play(engine: Engine, script: str) -> None:
    """Run a script in one transaction, as `psql -1` would."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        cursor = connection.connection.cursor()
        try:
            cursor.execute(script)
        finally:
            cursor.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("main", "own", "advice"),
    [
        (0, 0, "--line main --to 7` and `riverrun migrate up --line riverrun --to 1`"),
        (6, 0, "--line main --to 7` and `riverrun migrate up --line riverrun --to 1`"),
        (7, 0, "--line riverrun --to 1`"),
        (8, 1, "leave frm= out"),
        (8, 2, "leave frm= out"),
        (8, 3, "leave frm= out"),
    ],
)
def test_a_revision_that_starts_elsewhere_is_refused(
    host: Host, tmp_path: Path, main: int, own: int, advice: str
) -> None:
    """A refused revision changes nothing, and both remedies that its error names work."""
    for line, to in ((Line.main, main), (Line.riverrun, own)):
        if to:
            migrate(host.engine, line=line, to=to)
    host.run("stamp", "0001")
    with pytest.raises(MigrationRefused) as caught:
        host.run("upgrade", "head")
    assert advice in str(caught.value)
    assert f"frm=({main}, {own})" in str(caught.value)
    assert stands(host.engine) == (main, own)
    for line, to in re.findall(r"--line (\w+) --to (\d)", str(caught.value)):
        migrate(host.engine, line=line, to=int(to))
    if "lead it there" not in str(caught.value):
        write(tmp_path, "0002", "0001", "8, 3", "7, 1")
    host.run("upgrade", "head")
    assert actual(host.engine) == expected()


def test_a_downgrade_that_starts_elsewhere_is_refused(host: Host) -> None:
    """A database that was migrated down by other means is not taken for its former version."""
    host.run("upgrade", "head")
    migrate(host.engine, line="riverrun", to=1)
    with pytest.raises(MigrationRefused, match=r"is at frm=\(8, 1\)"):
        host.run("downgrade", "0001")
    assert stands(host.engine) == (8, 1)


def test_an_upgrade_takes_nothing_down(host: Host) -> None:
    """Versions that another application or the command has installed stay."""
    migrate(host.engine)
    host.run("upgrade", "0001")
    assert stands(host.engine) == (8, 3)


def test_a_downgrade_takes_nothing_up(host: Host, tmp_path: Path) -> None:
    """Versions that were removed by other means stay removed."""
    write(tmp_path, "0002", "0001", "8, 3", "7, 1")
    host.run("upgrade", "head")
    migrate(host.engine, line="riverrun", to=0)
    migrate(host.engine, line="main", to=6)
    host.run("downgrade", "0001")
    assert stands(host.engine) == (6, 0)


def test_a_revision_that_removes_all(host: Host, tmp_path: Path) -> None:
    """A revision can remove all tables, and its downgrade creates them again."""
    write(tmp_path, "0003", "0002", "0, 0", "8, 3")
    host.run("upgrade", "head")
    assert stands(host.engine) == (0, 0)
    host.run("downgrade", "0002")
    assert actual(host.engine) == expected()


def test_a_gap_is_not_stepped_over(host: Host) -> None:
    """If a version below the highest is missing, the database counts as being below the gap."""
    host.run("upgrade", "head")
    with host.engine.begin() as connection:
        connection.execute(text("DELETE FROM river_migration WHERE line = 'main' AND version = 6"))
    with pytest.raises(MigrationRefused, match=r"is at frm=\(5, 3\)"):
        host.run("downgrade", "0001")
    migrate(host.engine)
    host.run("downgrade", "0001")
    assert stands(host.engine) == (7, 1)


@needs_plugins
def test_an_environment_leaves_anothers_schemas(host: Host) -> None:
    """A host gets proposals for the schemas that it names only; with False, for none."""
    with host.engine.begin() as connection:
        for name in ("ours", "theirs"):
            connection.execute(text(f"CREATE SCHEMA {name}"))
    migrate(host.engine, line="main", to=7, schema="theirs")
    host.run("upgrade", "head")
    host.configure('include_schemas=True, riverrun="ours"')
    assert [op for op in ops(host.revise()) if "riverrun_migrate" in op] == [
        "op.riverrun_migrate(8, 3, frm=(0, 0), schema='ours')"
    ]
    host.run("upgrade", "head")
    assert host.check() == ""
    host.configure("include_schemas=True, riverrun=False")
    assert host.check() == ""
    host.configure("include_schemas=True")
    assert "theirs" in host.check()


def test_a_script_leads_all_the_way_and_back(host: Host) -> None:
    """Offline, each revision starts where the previous one in the script has led."""
    play(
        host.engine, "DROP TABLE IF EXISTS alembic_version;" + host.run("upgrade", "head", "--sql")
    )
    assert actual(host.engine) == expected()
    down = host.run("downgrade", "0002:base", "--sql")
    play(host.engine, down)
    assert stands(host.engine) == (0, 0)
    with pytest.raises(Exception, match="starts at version 8 of line main"):
        play(host.engine, down)


@pytest.mark.parametrize("command", [("downgrade", "0002:0001"), ("upgrade", "0001:0002")])
def test_a_script_that_cannot_know_where_it_starts_is_refused(
    host: Host, tmp_path: Path, command: tuple[str, str]
) -> None:
    """Offline, frm= is required, because the database cannot be queried."""
    write(tmp_path, "0002", "0001", "8, 3", "7, 1")
    with pytest.raises(MigrationRefused, match="pass frm="):
        host.run(*command, "--sql")


def test_a_script_does_not_turn_round(host: Host, tmp_path: Path) -> None:
    """Offline, a downgrade that would go up and an upgrade that would go down are refused."""
    write(tmp_path, "0002", "0001", "6, 0", "8, 3")
    with pytest.raises(MigrationRefused, match="to do so all the same, pass frm=\\(7, 1\\)"):
        host.run("upgrade", "head", "--sql")


@pytest.fixture
def second(host: Host, tmp_path: Path) -> Host:
    """Another environment on the same database and the same tables, with an install by hand."""
    folder = tmp_path / "second"
    folder.mkdir()
    second = Host(folder, host.engine)
    second.configure('version_table="second \'s version"')
    write(folder, "s1", None, "8, 3", "0, 0")
    return second


def test_an_environment_keeps_the_tables_that_it_made(
    host: Host, second: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """A second one that finds them made, and may lead them further, does not take them down."""
    host.run("upgrade", "0001")
    second.run("upgrade", "head")
    assert stands(host.engine) == (8, 3)
    second.run("downgrade", "base")
    assert stands(host.engine) == (8, 3)
    assert "the Alembic environment of public.alembic_version made the tables" in caplog.text
    second.run("upgrade", "head")
    host.run("downgrade", "base")
    assert stands(host.engine) == (0, 0)
    # The other way round: the name of the version table needs quotes.
    second.run("downgrade", "base")
    second.run("upgrade", "head")
    host.run("stamp", "0001")
    host.run("downgrade", "base")
    assert stands(host.engine) == (8, 3)
    second.run("downgrade", "base")
    assert stands(host.engine) == (0, 0)


def test_tables_of_another_environment_go_by_frm(host: Host, second: Host, tmp_path: Path) -> None:
    """A revision that says where it starts may take down what another environment made."""
    host.run("upgrade", "head")
    second.run("upgrade", "head")
    write(tmp_path / "second", "s1", None, "8, 3", "0, 0, frm=(8, 3)")
    second.run("downgrade", "base")
    assert stands(host.engine) == (0, 0)


def test_tables_without_an_owner_may_be_taken_down(host: Host, second: Host) -> None:
    """What `riverrun migrate` made belongs to no environment."""
    migrate(host.engine)
    second.run("upgrade", "head")
    second.run("downgrade", "base")
    assert stands(host.engine) == (0, 0)


def test_a_script_keeps_the_tables_of_another_environment(
    host: Host, second: Host, tmp_path: Path
) -> None:
    """Offline, too, the one that made them is written down, and a script of another one fails."""
    play(host.engine, host.run("upgrade", "head", "--sql"))
    write(tmp_path / "second", "s2", "s1", "8, 3, frm=(8, 3)", "8, 3, frm=(8, 3)")
    second.run("stamp", "head")
    with pytest.raises(Exception, match=r"made by the Alembic environment of public\.alemb"):
        play(host.engine, second.run("downgrade", "s2:base", "--sql"))
    assert stands(host.engine) == (8, 3)
    host.run("downgrade", "base")
    assert stands(host.engine) == (0, 0)

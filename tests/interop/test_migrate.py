"""River's migrator, on which its command line is built, and riverrun's on one database."""

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine

from interop.peers import StartPeer
from interop.rpc import Process
from riverrun.cli.app import ExitCode
from riverrun.cli.main import main
from riverrun.migrations import LATEST, Line, current, migrate, validate

NEWEST = LATEST[Line.main]
BEHIND = ExitCode.schema_behind


@pytest.fixture
def peer(empty_go_peer: StartPeer) -> Process:
    """A Go process on the empty database."""
    return empty_go_peer()


def go_validates(peer: Process, version: int) -> bool:
    """Return whether River's validation passes at `version`; the newest as its CLI does."""
    target = {} if version == NEWEST else {"target_version": version}
    return bool(peer.call("interop_validate", **target)["valid"])


def stands(engine: Engine) -> int:
    """Return the version of River's line that riverrun reads."""
    with engine.connect() as connection:
        return current(connection, Line.main)


def test_both_know_the_same_newest_version(peer: Process) -> None:
    """The newest River has no migration that riverrun lacks."""
    assert peer.call("handshake")["migration_lines"] == {"main": NEWEST}


def test_go_validates_every_version_we_stop_at(peer: Process, empty_database: Engine) -> None:
    """River's `validate` passes wherever riverrun's migrations stop, and not beyond."""
    ups = list(range(1, NEWEST + 1))
    for version in [*ups, *reversed(ups[:-1])]:
        migrate(empty_database, line=Line.main, to=version)
        assert go_validates(peer, version), version
        assert version == NEWEST or not go_validates(peer, version + 1)


def test_our_own_line_is_nothing_to_go(peer: Process, empty_database: Engine) -> None:
    """River's `validate` passes with riverrun's own tables present."""
    migrate(empty_database)
    assert go_validates(peer, NEWEST)


def test_we_validate_what_go_migrated(peer: Process, empty_database: Engine) -> None:
    """After Go migrated, `riverrun migrate validate` asks only for riverrun's own line."""
    done = peer.call("migrate")
    assert done == {
        "applied": list(range(1, NEWEST + 1)),
        "existing": done["applied"],
        "valid": True,
    }
    with empty_database.connect() as connection:
        assert {missing.line for missing in validate(connection)} == {Line.riverrun}
    url = empty_database.url.render_as_string(hide_password=False)
    run = CliRunner()
    assert run.invoke(main, ["migrate", "validate", "--database-url", url]).exit_code == BEHIND
    assert run.invoke(main, ["migrate", "up", "--database-url", url]).exit_code == 0
    valid = run.invoke(main, ["migrate", "validate", "--database-url", url])
    assert valid.exit_code == 0, valid.output


def test_up_and_down_in_turns(peer: Process, empty_database: Engine) -> None:
    """Each side continues the other's migrations, up and down, and leaves nothing at the end."""
    for version in range(1, NEWEST + 1):
        if version % 2:
            assert peer.call("migrate", target_version=version)["applied"] == [version]
        else:
            migrate(empty_database, line=Line.main, to=version)
        assert stands(empty_database) == version
        assert go_validates(peer, version)
    for version in range(NEWEST - 1, 0, -1):
        if version % 2:
            migrate(empty_database, line=Line.main, to=version)
        else:
            assert peer.call("migrate", direction="down")["applied"] == [version + 1]
        assert stands(empty_database) == version
        assert go_validates(peer, version)
    assert peer.call("migrate", direction="down", target_version=-1)["existing"] == []
    assert stands(empty_database) == 0


def test_a_schema_with_a_name(peer: Process, empty_database: Engine) -> None:
    """In a named schema, each side validates what the other migrated."""
    peer.call("migrate", schema="go_s")
    with empty_database.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA python_s")
    migrate(empty_database, line=Line.main, to=NEWEST, schema="python_s")
    assert peer.call("interop_validate", schema="python_s")["valid"]
    with empty_database.connect() as connection:
        missing = validate(connection, "go_s")
    assert {each.line for each in missing} == {Line.riverrun}

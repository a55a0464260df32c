"""Each side's migrations, and the other side at work on them."""

import pytest
from sqlalchemy import Engine, text

from interop.conformance.fleet import failed
from interop.peers import Peers, StartPeer
from interop.rpc import INVALID_PARAMS, REJECTED, Process
from riverrun.migrations import LATEST, Line, migrate

ALL = list(range(1, LATEST[Line.main] + 1))


@pytest.fixture
def go(empty_go_peer: StartPeer) -> Process:
    """A Go process on the empty database."""
    return empty_go_peer()


@pytest.fixture
def python(empty_peers: Peers) -> Process:
    """Riverrun's process on the empty database."""
    return empty_peers.python()


def works(inserter: Process, worker: Process, schema: str = "") -> None:
    """Show that what one side inserts the other works."""
    place = {"schema": schema} if schema else {}
    job = inserter.call("insert", behavior="output", message="migrated", **place)["id"]
    assert worker.call("work", id=job, **place)["state"] == "completed"
    assert inserter.call("get", id=job, **place)["metadata"]["output"] == {"message": "migrated"}


def test_reference_migrator_candidate_runtime(go: Process, python: Process) -> None:
    """On the tables that Go made, riverrun and Go work each other's jobs."""
    assert go.call("migrate")["applied"] == ALL
    assert python.call("migrate") == {"applied": [], "existing": ALL, "valid": True}
    works(go, python)
    works(python, go)


def test_candidate_migrator_reference_runtime(go: Process, python: Process) -> None:
    """On the tables that riverrun made, River finds nothing wrong, and both work."""
    planned = python.call("migrate", dry_run=True)
    assert (planned["applied"], planned["existing"]) == (ALL, [])
    assert python.call("migrate", max_steps=3)["applied"] == ALL[:3]
    assert python.call("migrate") == {"applied": ALL[3:], "existing": ALL, "valid": True}
    assert go.call("migrate") == {"applied": [], "existing": ALL, "valid": True}
    works(go, python)
    works(python, go)


@pytest.mark.parametrize("first", ["go", "python"])
def test_historical_migration_down_up(
    go: Process, python: Process, empty_database: Engine, first: str
) -> None:
    """A job outlives the way down and up again, the sides taking turns at the steps."""
    a, b = (go, python) if first == "go" else (python, go)
    a.call("migrate")
    job = a.call("insert", message="kept", opts={"metadata": {"kept": True}})["id"]
    turn = [a, b]
    for version in reversed(ALL[3:]):
        # riverrun's own tables stand on River's, and go before them.
        migrate(empty_database, line=Line.riverrun, to=0)
        done = turn[version % 2].call("migrate", direction="down", target_version=version - 1)
        assert (done["applied"], done["existing"][-1]) == ([version], version - 1)
        assert turn[1 - version % 2].call("migrate", dry_run=True)["existing"] == ALL[: version - 1]
    for version in ALL[3:]:
        done = turn[version % 2].call("migrate", target_version=version)
        assert done["applied"] == [version]
    assert (
        go.call("migrate")
        == python.call("migrate")
        == {
            "applied": [],
            "existing": ALL,
            "valid": True,
        }
    )
    assert go.call("get", id=job)["metadata"] == {"kept": True}
    works(go, python)
    works(python, go)


@pytest.mark.parametrize("first", ["go", "python"])
def test_migration_mixed_case_schema(
    go: Process, python: Process, empty_database: Engine, first: str
) -> None:
    """A schema whose name needs quotes is made, worked and emptied by either side."""
    migrator, other = (go, python) if first == "go" else (python, go)
    with empty_database.begin() as connection:
        connection.execute(text('CREATE SCHEMA "MixedCase"'))
    assert migrator.call("migrate", schema="MixedCase")["existing"] == ALL
    assert other.call("migrate", schema="MixedCase")["valid"]
    works(go, python, "MixedCase")
    works(python, go, "MixedCase")


def test_custom_schema_reference_migrate_candidate_work(go: Process, python: Process) -> None:
    """In a schema that Go migrated, riverrun works what Go inserted."""
    assert go.call("migrate", schema="custom")["existing"] == ALL
    works(go, python, "custom")


def test_custom_schema_candidate_migrate_reference_work(go: Process, python: Process) -> None:
    """In a schema that riverrun migrated, Go works what riverrun inserted."""
    assert python.call("migrate", schema="custom")["existing"] == ALL
    works(python, go, "custom")
    failed(python, REJECTED, "migrate", schema="no schema;")
    failed(python, INVALID_PARAMS, "migrate", schema=3)

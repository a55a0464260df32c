"""One side's migrations, and both sides at work on the migrated tables."""

import pytest
from sqlalchemy import Engine, text

from interop.conformance.fleet import WAYS, failed
from interop.conformance.registry import passed
from interop.peers import Peers, StartPeer
from interop.rpc import INVALID_PARAMS, REJECTED, Process
from riverrun.migrations import LATEST, Line

ALL = list(range(1, LATEST[Line.main] + 1))


@pytest.fixture
def go(empty_go_peer: StartPeer) -> Process:
    """A Go process on the empty database."""
    return empty_go_peer()


@pytest.fixture
def python(empty_peers: Peers) -> Process:
    """A riverrun process on the empty database."""
    return empty_peers.python()


def works(inserter: Process, worker: Process, schema: str = "") -> None:
    """Check that a job inserted by one side is worked by the other."""
    place = {"schema": schema} if schema else {}
    job = inserter.call("insert", behavior="output", message="migrated", **place)["id"]
    assert worker.call("work", id=job, **place)["state"] == "completed"
    assert inserter.call("get", id=job, **place)["metadata"]["output"] == {"message": "migrated"}


@passed("riverrun works on the tables that River migrated")
def test_reference_migrator_candidate_runtime(go: Process, python: Process) -> None:
    """On tables that Go migrated, riverrun and Go work each other's jobs."""
    assert go.call("migrate")["applied"] == ALL
    assert python.call("migrate") == {"applied": [], "existing": ALL, "valid": True}
    works(go, python)
    works(python, go)


@passed("River works on the tables that riverrun migrated")
def test_candidate_migrator_reference_runtime(go: Process, python: Process) -> None:
    """On tables that riverrun migrated, River's validation passes and both sides work."""
    planned = python.call("migrate", dry_run=True)
    assert (planned["applied"], planned["existing"]) == (ALL, [])
    assert python.call("migrate", max_steps=3)["applied"] == ALL[:3]
    assert python.call("migrate") == {"applied": ALL[3:], "existing": ALL, "valid": True}
    assert go.call("migrate") == {"applied": [], "existing": ALL, "valid": True}
    works(go, python)
    works(python, go)


@passed("every version, up and down, with the sides taking turns")
@pytest.mark.parametrize(("by", "to"), WAYS)
def test_historical_migration_down_up(request: pytest.FixtureRequest, by: str, to: str) -> None:
    """If one side migrates to any version, the other side can migrate up and down from there."""
    starts, goes_on = request.getfixturevalue(by), request.getfixturevalue(to)
    for version in ALL:
        place = {"schema": f"history_{version}"}
        starts.call("migrate", direction="down", target_version=-1, **place)
        begun = starts.call("migrate", direction="up", target_version=version, **place)
        assert (begun["existing"], begun["valid"]) == (ALL[:version], version == ALL[-1])
        done = goes_on.call("migrate", direction="up", **place)
        assert (done["existing"], done["valid"]) == (ALL, True)
        job = goes_on.call("insert", message=f"at {version}", **place)
        assert starts.call("get", id=job["id"], **place) == job
        down = starts.call("migrate", direction="down", target_version=version, **place)
        assert down["existing"] == ALL[:version]
        again = goes_on.call("migrate", direction="up", **place)
        assert (again["existing"], again["valid"]) == (ALL, True)
        assert (
            goes_on.call("migrate", direction="down", target_version=-1, **place)["existing"] == []
        )


@passed("a schema whose name needs quotes")
@pytest.mark.parametrize(("by", "to"), WAYS)
def test_migration_mixed_case_schema(
    request: pytest.FixtureRequest, empty_database: Engine, by: str, to: str
) -> None:
    """Both sides migrate and work a schema whose name needs quotes."""
    migrator, other = request.getfixturevalue(by), request.getfixturevalue(to)
    with empty_database.begin() as connection:
        connection.execute(text('CREATE SCHEMA "MixedCase"'))
    assert migrator.call("migrate", schema="MixedCase")["existing"] == ALL
    assert other.call("migrate", schema="MixedCase")["valid"]
    works(migrator, other, "MixedCase")
    works(other, migrator, "MixedCase")


@passed("riverrun works in a schema that River migrated")
def test_custom_schema_reference_migrate_candidate_work(go: Process, python: Process) -> None:
    """In a schema that Go migrated, riverrun works a job that Go inserted."""
    assert go.call("migrate", schema="custom")["existing"] == ALL
    works(go, python, "custom")


@passed("River works in a schema that riverrun migrated")
def test_custom_schema_candidate_migrate_reference_work(go: Process, python: Process) -> None:
    """In a schema that riverrun migrated, Go works a job that riverrun inserted."""
    assert python.call("migrate", schema="custom")["existing"] == ALL
    works(python, go, "custom")
    failed(python, REJECTED, "migrate", schema="no schema;")
    failed(python, INVALID_PARAMS, "migrate", schema=3)

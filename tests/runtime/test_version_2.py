"""On a database at version 2 of riverrun's line, all works but what version 3 adds."""

import json
import logging
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, event

from riverrun import Interval, PeriodicJob
from riverrun.cli.main import main
from riverrun.db.transactions import joined
from riverrun.events import JobCompleted
from riverrun.migrations import migrate
from riverrun.testing.clock import FrozenClock
from riverrun.verbs.periodic import list_periodic
from riverrun.verbs.version_3 import AGAIN_S, Version3, has_version_3
from schemas import search_path_options
from waiting import DEADLINE_S, until

from .conftest import App, Task


@pytest.fixture
def version_2(engine: Engine, schema: str) -> None:
    """The test's schema is at version 2."""
    migrate(engine, line="riverrun", to=2, schema=schema)


def test_version_3_is_found_where_it_is(engine: Engine, schema: str) -> None:
    """It is found in a schema of any name and on the search path, and not once it is taken down."""
    path = create_engine(
        engine.url, connect_args={"options": search_path_options("nowhere", schema)}
    )
    assert has_version_3(engine, schema=schema)
    assert has_version_3(path)
    assert not has_version_3(engine, schema="nowhere")
    migrate(engine, line="riverrun", to=2, schema=schema)
    assert not has_version_3(engine, schema=schema)
    assert not has_version_3(path)
    path.dispose()


def test_a_client_looks_once(engine: Engine, schema: str, version_2: None) -> None:
    """One statement finds version 3. While it is missing, a minute passes until the next look."""
    clock = FrozenClock()
    known = Version3(schema, clock)
    statements: list[str] = []
    own = create_engine(engine.url)
    event.listen(own, "before_cursor_execute", lambda *args: statements.append(args[2]))

    def looks() -> list[bool]:
        statements.clear()
        with joined(own, schema) as transaction:
            return [known.is_there(transaction) for _ in range(3)]

    assert (looks(), len(statements)) == ([False] * 3, 1)
    migrate(engine, line="riverrun", schema=schema)
    assert (looks(), len(statements)) == ([False] * 3, 0)
    clock.advance(timedelta(seconds=AGAIN_S))
    assert (looks(), len(statements)) == ([True] * 3, 1)
    clock.advance(timedelta(hours=1))
    assert (looks(), len(statements)) == ([True] * 3, 0)
    own.dispose()


def test_a_client_works_at_version_2(
    app: App, schema: str, version_2: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A client starts, leads, inserts and works what recurs, and misses no table."""
    jobs = [PeriodicJob(Interval(3600), Task, id="hourly", run_on_start=True)]
    client = app.client(periodic_jobs=jobs)
    with client.subscribe(JobCompleted) as events:
        client.start()
        assert events.get(DEADLINE_S).job.metadata["river:periodic_job_id"] == "hourly"
        [row] = list_periodic(app.engine, schema=schema)
        assert row.id == "hourly"
        until(lambda: client.healthy, "a healthy client", why=lambda: client.problems)
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in warned if "riverrun_" in record.getMessage()]


def test_health_notes_that_version_3_is_missing(
    engine: Engine, schema: str, version_2: None
) -> None:
    """`riverrun health` is healthy without version 3, and names the command that adds it."""
    url = engine.url.render_as_string(hide_password=False)
    command = ["health", "--json", "--database-url", url, "--schema", str(schema)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["healthy"], report["problems"]) == (True, [])
    [note] = report["notes"]
    assert note.startswith("schema lacks riverrun 003; run `riverrun migrate up --schema ")
    migrate(engine, line="riverrun", schema=schema)
    assert json.loads(CliRunner().invoke(main, command).stdout)["notes"] == []

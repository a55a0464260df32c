"""Schemas of any name, and of any place on the search path."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema, DropSchema

from riverrun import Client, JobArgs, QueueConfig, UniqueOpts, Workers
from riverrun.errors import InvalidOption
from riverrun.events import JobCompleted
from riverrun.jobs.checks import check_schema
from riverrun.jobs.options import InsertOpts
from riverrun.migrations import LATEST, Line, current, migrate, sql
from riverrun.migrations.run import validate
from riverrun.verbs import get
from riverrun.verbs.reindex import reindex
from riverrun.verbs.schedule import schedule
from schemas import search_path_options
from waiting import DEADLINE_S

NAMES = (
    "User Data",
    "select",
    "Mixed",
    "o'clock",
    'say "hi"',
    'x"; DROP TABLE y; --',
    "1st",
    "with-dash",
    "a.b",
    "100%",
    "%s",
    "a:b",
    "jobs_",
    "__jobs",
    "[none]",
    "a$$b",
    "$body$",
    "$body_$ $body$",
    "{s}",
    "{0}%(a)s",
    "a\\:b::c",
    "back\\slash'",
    "sch\u00e9ma",
    "x" * 63,
)


@attrs.frozen
class Note(JobArgs, kind="note"):
    """Args of no interest."""

    number: int = 0


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    """A schema of each name."""
    with engine.begin() as connection:
        connection.execute(CreateSchema(request.param))
    yield request.param
    with engine.begin() as connection:
        connection.execute(DropSchema(request.param, cascade=True))


def test_any_name_is_right_everywhere(engine: Engine, named: str) -> None:
    """Migrations, inserts, COPY, unique jobs, notifications and maintenance find their schema."""
    script = "".join(sql(line, 0, 1, named) for line in (Line.main,))
    with engine.begin() as connection:
        connection.connection.cursor().execute(script.replace("BEGIN;", "").replace("COMMIT;", ""))
    assert migrate(engine, schema=named)
    with engine.connect() as connection:
        assert validate(connection, named) == []
    workers = Workers()

    @workers.register
    def note(args: Note) -> None:
        pass

    client = Client(
        engine,
        schema=named,
        workers=workers,
        # So that without a notification no job is found in time.
        queues={"default": QueueConfig(poll_interval=600)},
    )
    unique = InsertOpts(unique=UniqueOpts(by_args=True))
    later = InsertOpts(scheduled_at=datetime(2100, 1, 1, tzinfo=UTC))
    planned = client.insert(engine, Note(9), later).job
    done = client.subscribe(JobCompleted)
    with client, Session(engine) as session:
        waiting = {client.insert(session, Note(), unique).job.id}
        assert client.insert(session, Note(), unique).skipped_as_duplicate
        assert client.insert_many_fast(session, [Note(1), Note(2)]) == 2
        session.commit()
        while waiting:
            waiting.discard(done.get(timeout=DEADLINE_S).job.id)
    schedule(engine, schema=named, now=datetime(2100, 1, 2, tzinfo=UTC))
    assert get(engine, planned.id, schema=named).state == "available"
    assert reindex(engine, "river_job_kind", timeout_s=30, schema=named)
    assert migrate(engine, line=Line.riverrun, to=0, schema=named)
    assert migrate(engine, line=Line.main, to=0, schema=named)


@pytest.mark.parametrize("name", ["", "x" * 64, "\u00e9" * 32, "a\0b", "\ud800", 7])
def test_refuses_what_names_no_schema(name: str) -> None:
    """A name that PostgreSQL would cut or refuse is refused at once."""
    with pytest.raises(InvalidOption, match="schema"):
        check_schema(name)


def test_tables_need_not_be_first_on_the_search_path(engine: Engine, schema: str) -> None:
    """Notifications and rebuilt indexes are those of the schema in which the tables are found."""
    options = search_path_options("public", schema)
    behind = create_engine(engine.url, connect_args={"options": options})
    workers = Workers()

    @workers.register
    def note(args: Note) -> None:
        pass

    client = Client(behind, workers=workers, queues={"default": QueueConfig(poll_interval=600)})
    done = client.subscribe(JobCompleted)
    with client:
        for producer in (Client(engine, schema=schema), Client(behind)):
            job = producer.insert(producer.engine, Note()).job
            while done.get(timeout=DEADLINE_S).job.id != job.id:
                pass
    with engine.connect() as connection:
        file = text("SELECT pg_relation_filenode(to_regclass(:name))")
        params = {"name": f"{schema}.river_job_kind"}
        before = connection.scalar(file, params)
        connection.rollback()  # no index is rebuilt while another transaction is open
        assert reindex(behind, "river_job_kind", timeout_s=30)
        assert connection.scalar(file, params) != before
    behind.dispose()


def test_a_later_version_joins_the_tables_that_are_there(empty_database: Engine) -> None:
    """Without a schema, what a migration makes or drops is where River's tables were found."""
    name = "Far Behind"
    with empty_database.begin() as connection:
        for each in ("first", name, "last"):
            connection.execute(CreateSchema(each))
    migrate(empty_database, line=Line.main, to=3, schema=name)
    migrate(empty_database, schema="last")
    options = search_path_options("first", name, "last")
    behind = create_engine(empty_database.url, connect_args={"options": options})
    with behind.connect() as connection:
        assert current(connection, Line.main) == 3
    migrate(behind)
    assert tables_of(empty_database, name) == tables_of(empty_database, "last") != set()
    with empty_database.connect() as connection:
        assert validate(connection, name) == []
    migrate(behind, line=Line.riverrun, to=0)
    migrate(behind, line=Line.main, to=0)
    behind.dispose()
    assert tables_of(empty_database, "first") == tables_of(empty_database, name) == set()
    with empty_database.connect() as connection:
        assert validate(connection, "last") == []


def test_a_revision_joins_the_tables_that_are_there(empty_database: Engine) -> None:
    """The same of `op.riverrun_migrate`, which puts the tables where they are."""
    name = "Far Behind"
    with empty_database.begin() as connection:
        for each in ("first", name):
            connection.execute(CreateSchema(each))
    migrate(empty_database, line=Line.main, to=5, schema=name)
    options = search_path_options("first", name)
    behind = create_engine(empty_database.url, connect_args={"options": options})
    with behind.begin() as connection:
        operations: Any = Operations(MigrationContext.configure(connection))
        operations.riverrun_migrate(LATEST[Line.main], LATEST[Line.riverrun])
    behind.dispose()
    assert tables_of(empty_database, "first") == set()
    with empty_database.connect() as connection:
        assert validate(connection, name) == []


def tables_of(engine: Engine, schema: str) -> set[str]:
    """Return the tables in `schema`."""
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names(schema))

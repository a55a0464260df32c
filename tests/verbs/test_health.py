"""The state of the tables themselves."""

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError

from factories import insert_job
from riverrun.migrations import LATEST, Line, migrate
from riverrun.models import Base
from riverrun.verbs import schema_health
from verbs.joins import KINDS, opened


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_that_is_complete(engine: Engine, schema: str, kind: str) -> None:
    """Each table and index of the schema has its size, and both lines their versions."""
    for _ in range(20):
        insert_job(engine, schema)
    with opened(kind, engine) as where:
        found = schema_health(where, schema=schema)
    assert [(each.line, each.applied, each.newest, each.missing) for each in found.lines] == [
        (line, LATEST[line], LATEST[line], []) for line in Line
    ]
    assert [each.name for each in found.tables] == sorted(Base.metadata.tables)
    jobs = next(each for each in found.tables if each.name == "river_job")
    indexes = [each for each in found.indexes if each.table == "river_job"]
    assert jobs.table_bytes >= 8192
    assert jobs.index_bytes == sum(each.bytes for each in indexes)
    assert {"river_job_pkey", "river_job_kind", "river_job_unique_idx"} <= {
        each.name for each in indexes
    }
    assert all(each.valid for each in found.indexes)
    assert {each.table for each in found.indexes} == set(Base.metadata.tables)


def test_rows_and_maintenance(empty_database: Engine) -> None:
    """The rows are the server's estimate, and it is known when a table was maintained."""
    migrate(empty_database)
    for _ in range(7):
        insert_job(empty_database)
    with empty_database.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE river_job"))
    tables = {each.name: each for each in schema_health(empty_database).tables}
    assert tables["river_job"].live_rows == 7
    assert tables["river_job"].vacuumed_at is not None
    assert tables["river_job"].analyzed_at is not None
    assert tables["river_queue"].vacuumed_at is None


def test_a_schema_that_is_behind(empty_database: Engine) -> None:
    """What is missing is named, and only what is there is measured."""
    found = schema_health(empty_database)
    assert [each.applied for each in found.lines] == [0, 0]
    assert found.lines[0].missing == list(range(1, LATEST[Line.main] + 1))
    assert (list(found.tables), list(found.indexes)) == ([], [])
    migrate(empty_database, line=Line.main, to=4)
    found = schema_health(empty_database)
    assert [each.applied for each in found.lines] == [4, 0]
    assert found.lines[0].missing == list(range(5, LATEST[Line.main] + 1))
    assert "river_queue" in {each.name for each in found.tables}
    assert "riverrun_client" not in {each.name for each in found.tables}


def test_a_newer_schema(empty_database: Engine) -> None:
    """A version that a later release has installed is applied, and nothing is missing."""
    migrate(empty_database)
    newer = LATEST[Line.main] + 1
    with empty_database.begin() as connection:
        values = f"('main', {newer})"
        connection.execute(text(f"INSERT INTO river_migration (line, version) VALUES {values}"))
    main, _ = schema_health(empty_database).lines
    assert (main.applied, main.missing) == (newer, [])


def test_an_index_whose_build_was_cut_off(empty_database: Engine) -> None:
    """An index that queries cannot use is marked."""
    migrate(empty_database)
    insert_job(empty_database)
    insert_job(empty_database)
    build = "CREATE UNIQUE INDEX CONCURRENTLY half_built ON river_job (kind)"
    own = empty_database.execution_options(isolation_level="AUTOCOMMIT")
    problem = "could not create unique index"
    with own.connect() as connection, pytest.raises(IntegrityError, match=problem):
        connection.execute(text(build))
    assert [each.name for each in schema_health(empty_database).indexes if not each.valid] == [
        "half_built"
    ]


def test_the_longest_transaction(empty_database: Engine) -> None:
    """The oldest open transaction is named, also a prepared one, but not the caller's own."""
    migrate(empty_database)
    url = make_url(empty_database.url).update_query_dict({"application_name": "a host"})
    host = create_engine(url)
    assert schema_health(empty_database).longest_transaction is None
    with host.connect() as first, host.connect() as second:
        pid = first.execute(text("SELECT pg_backend_pid()")).scalar_one()
        second.execute(text("SELECT 1"))
        found = schema_health(empty_database).longest_transaction
        assert found is not None
        assert (found.pid, found.name, found.state) == (pid, "a host", "idle in transaction")
        assert found.age_s >= 0
        with empty_database.connect() as own:
            own.execute(text("SELECT 1"))
            first.rollback()
            second.rollback()
            assert schema_health(own).longest_transaction is None
    with host.connect() as connection:
        transaction = connection.begin_twophase("two phases")
        connection.execute(text("CREATE TABLE thing ()"))
        transaction.prepare()
        found = schema_health(empty_database).longest_transaction
        transaction.rollback()
    host.dispose()
    assert found is not None
    assert (found.pid, found.name, found.state) == (None, "two phases", "prepared")


def test_a_role_that_may_see_little(engine: Engine, schema: str) -> None:
    """A role without any right to the other tables sees their sizes."""
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE reader"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO reader"))
        connection.execute(text(f"GRANT SELECT ON {schema}.river_migration TO reader"))
        connection.execute(text("SET LOCAL ROLE reader"))
        found = schema_health(connection, schema=schema)
        connection.rollback()
    assert [each.name for each in found.tables] == sorted(Base.metadata.tables)

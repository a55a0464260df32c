"""The schema: River's to the letter, from any version to any other."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from migrations.catalog import catalog
from migrations.river_schema import OWN, RIVER
from riverrun import verbs
from riverrun.errors import InvalidOption, SchemaMissing
from riverrun.jobs.args import RawArgs
from riverrun.migrations import LATEST, Line, Missing, current, migrate, sql, validate
from riverrun.migrations.run import MigrationRefused
from riverrun.models import Base
from schemas import ORIGINAL, migrations_of, new_schema_name, quoted

JOB_STATES = {
    2: ["available", "running", "completed", "retryable", "scheduled", "discarded", "cancelled"],
    4: ["pending"],
}
FINAL = {"completed", "discarded", "cancelled"}


def expected() -> dict[str, list[Any]]:
    """Return River's catalog and ours, in one."""
    return {part: sorted([*rows, *OWN.get(part, [])]) for part, rows in RIVER.items()}


def actual(engine: Engine, schema: str = "public") -> dict[str, list[Any]]:
    """Return the catalog of a migrated schema, in the same order."""
    with engine.connect() as connection:
        return {part: sorted(rows) for part, rows in catalog(connection, schema).items()}


def in_order(rows: list[Any]) -> list[Any]:
    """Return the columns of river_job in their physical order."""
    return [row[1] for row in rows if row[0] == "river_job"]


def at_once(engine: Engine) -> None:
    """Migrate to the newest version in one call."""
    migrate(engine)


def one_by_one(engine: Engine) -> None:
    """Migrate one version at a time."""
    for line in Line:
        for version in range(1, LATEST[line] + 1):
            assert len(migrate(engine, line=line, to=version)) == 1


def in_one_transaction(engine: Engine) -> None:
    """Migrate in a transaction that is open already."""
    with engine.begin() as connection:
        migrate(connection)


def up_down_up(engine: Engine) -> None:
    """Migrate up, down to nothing, and up again."""
    migrate(engine)
    migrate(engine, line="riverrun", to=0)
    for version in range(LATEST[Line.main], -1, -1):
        migrate(engine, line="main", to=version)
    with engine.connect() as connection:
        assert catalog(connection, "public")["columns"] == []
    migrate(engine)


def as_a_script(engine: Engine) -> None:
    """Run the statements that offline mode prints."""
    script = sql("main", 0, LATEST[Line.main]) + sql("riverrun", 0, LATEST[Line.riverrun])
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.connection.cursor().execute(script)


@pytest.mark.parametrize("way", [at_once, one_by_one, in_one_transaction, up_down_up, as_a_script])
def test_the_catalog_is_rivers(empty_database: Engine, way: Callable[[Engine], None]) -> None:
    """However a database comes to the newest version, its catalog is that of River's own."""
    way(empty_database)
    assert actual(empty_database) == expected()
    with empty_database.connect() as connection:
        columns = catalog(connection, "public")["columns"]
        assert in_order(columns) == in_order(RIVER["columns"])
        assert validate(connection) == []


def test_a_schema_of_its_own_is_no_different(engine: Engine, schema: str) -> None:
    """In a custom schema everything is as in the default one, and in the tests' copies of it."""
    assert actual(engine, ORIGINAL) == expected()
    assert actual(engine, schema) == expected()
    with engine.connect() as connection:
        assert validate(connection, schema=schema) == []


def test_the_tests_need_no_pg_dump(engine: Engine, schema: str) -> None:
    """Where no `pg_dump` can say what a schema is, the migrations' statements make the copies."""
    with engine.connect() as connection, connection.begin() as transaction:
        name = new_schema_name("migrated")
        script = migrations_of(ORIGINAL).replace(ORIGINAL, quoted(name))
        connection.connection.cursor().execute(script)
        migrated = {part: sorted(rows) for part, rows in catalog(connection, name).items()}
        transaction.rollback()
    assert migrated == expected()


@pytest.mark.parametrize("version", range(1, 8))
def test_an_earlier_version_is_taken_over_with_its_rows(
    empty_database: Engine, version: int
) -> None:
    """A database that stands at an earlier version, with jobs in it, comes up and keeps them."""
    engine = empty_database
    migrate(engine, line="main", to=version)
    states = [state for since, named in JOB_STATES.items() if version >= since for state in named]
    with engine.begin() as connection:
        for number, state in enumerate(states):
            connection.execute(
                text(
                    "INSERT INTO river_job (state, kind, max_attempts, args, finalized_at)"
                    " VALUES (CAST(:state AS river_job_state), :kind, 25,"
                    " CAST(:args AS jsonb), CASE WHEN :final THEN now() END)"
                ),
                {
                    "state": state,
                    "kind": f"kind_{number}",
                    "args": None if version < 4 and number == 0 else "{}",
                    "final": state in FINAL,
                },
            )
    migrate(engine)
    assert actual(engine) == expected()
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT state::text, args::text, tags::text FROM river_job ORDER BY id")
        ).all()
    assert [tuple(row) for row in rows] == [(state, "{}", "{}") for state in states]


@pytest.mark.parametrize("version", [2, 3])
def test_an_enum_that_others_know_is_not_changed_halfway(
    empty_database: Engine, version: int
) -> None:
    """A transaction that could not use the new value is refused, and nothing is done."""
    migrate(empty_database, line="main", to=version)
    with (
        pytest.raises(MigrationRefused, match="pass an Engine"),
        empty_database.begin() as connection,
    ):
        migrate(connection)
    with empty_database.connect() as connection:
        assert current(connection, "main") == version


def test_the_lines_do_not_leave_each_other_behind(empty_database: Engine) -> None:
    """River's line stays at 5 or later while ours is there, and comes before it."""
    migrate(empty_database, line="main", to=4)
    with pytest.raises(MigrationRefused, match="needs line main at 5"):
        migrate(empty_database, line="riverrun")
    migrate(empty_database)
    with pytest.raises(MigrationRefused, match="riverrun migrate down --line riverrun"):
        migrate(empty_database, line="main", to=4)
    assert actual(empty_database)["columns"] != []


def test_lines_of_others_are_left_alone(empty_database: Engine) -> None:
    """A line that neither River nor we know survives, and harms no validation."""
    migrate(empty_database)
    with empty_database.begin() as connection:
        connection.execute(text("INSERT INTO river_migration (line, version) VALUES ('x', 3)"))
    assert migrate(empty_database) == []
    with empty_database.connect() as connection:
        assert validate(connection) == []
        assert current(connection, "main") == LATEST[Line.main]


def test_validate_names_what_is_missing(empty_database: Engine) -> None:
    """Each version without a row is named."""
    migrate(empty_database, line="main", to=7)
    with empty_database.connect() as connection:
        assert validate(connection) == [
            Missing(Line.main, 8),
            Missing(Line.riverrun, 1),
            Missing(Line.riverrun, 2),
            Missing(Line.riverrun, 3),
        ]


def test_two_that_migrate_at_once_take_turns(empty_database: Engine) -> None:
    """Two containers that start together both end with a migrated database."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)

    def run() -> None:
        engine = create_engine(empty_database.url)
        try:
            with engine.connect():
                barrier.wait(timeout=10)
            migrate(engine)
        except BaseException as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert errors == []
    assert actual(empty_database) == expected()


def test_tables_made_by_hand_are_taken_over(empty_database: Engine) -> None:
    """Tables without a row in river_migration are completed, and the migration ends."""
    migrate(empty_database)
    with empty_database.begin() as connection:
        connection.execute(text("TRUNCATE river_migration"))
    migrate(empty_database)
    assert actual(empty_database) == expected()


@pytest.mark.parametrize("name", ["", "a" * 64, "\u00e9" * 32, "a\0b"])
def test_a_name_that_is_no_schemas_is_refused(empty_database: Engine, name: str) -> None:
    """A name that PostgreSQL would cut or refuse is refused before anything is done."""
    with pytest.raises(InvalidOption, match="schema is"):
        migrate(empty_database, schema=name)


def test_a_version_of_the_future_is_refused(empty_database: Engine) -> None:
    """A version that this release does not know is refused before anything is done."""
    with pytest.raises(InvalidOption, match="0 to 8"):
        migrate(empty_database, line="main", to=9)


def test_the_models_are_the_tables(engine: Engine, schema: str) -> None:
    """Every model names its table's columns, in their order, with their type and nullability."""
    inspector = inspect(engine)
    for table in Base.metadata.sorted_tables:
        columns = {
            column["name"]: column for column in inspector.get_columns(table.name, schema=schema)
        }
        assert [column.name for column in table.columns] == list(columns), table.name
        for column in table.columns:
            found = columns[column.name]
            ours = column.type.compile(engine.dialect).replace(f"{schema}.", "")
            theirs = found["type"].compile(engine.dialect).replace(f"{schema}.", "")
            assert _same_type(ours, theirs), f"{table.name}.{column.name}: {ours} is {theirs}"
            assert column.nullable == found["nullable"], f"{table.name}.{column.name}"


def _same_type(ours: str, theirs: str) -> bool:
    return ours == theirs or (ours, theirs) == ("VARCHAR[]", "TEXT[]")


def test_a_missing_table_is_named(empty_database: Engine) -> None:
    """A verb on a database that was never migrated names table, database and command."""
    with pytest.raises(SchemaMissing) as caught:
        verbs.insert(empty_database, RawArgs(kind="any_kind", encoded={}))
    message = str(caught.value)
    assert "river_job" in message
    assert str(empty_database.url.database) in message
    assert "riverrun migrate up" in message

"""Other autogenerate plugins: they propose no changes to objects of River or riverrun."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.schema import CreateSchema

from ext.marks import VERSION
from ext.test_alembic import MAKO
from migrations.test_alembic import alembic
from migrations.test_migrations import actual, expected
from riverrun.migrations import include_name, migrate

ENV = """
import os
import alembic_postgresql_enum
import riverrun.migrations
from alembic import context
from alembic_utils.pg_function import PGFunction
from alembic_utils.pg_trigger import PGTrigger
from alembic_utils.replaceable_entity import register_entities
from sqlalchemy import Column, Enum, Integer, MetaData, Table, create_engine

metadata = MetaData()
color = Enum("red", "blue", name="color")
Table("host_user", metadata, Column("id", Integer, primary_key=True), Column("color", color))
double = PGFunction(
    schema="public",
    signature="double(i integer)",
    definition="RETURNS integer AS $$ SELECT 2 * i $$ LANGUAGE sql",
)
register_entities([double], schemas=["public", "jobs"], entity_types=[PGFunction, PGTrigger])
{filter}
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, {options})
    with context.begin_transaction():
        context.run_migrations()
"""
FILTER = """
alembic_postgresql_enum.set_configuration(
    alembic_postgresql_enum.Config(
        include_name=lambda name: riverrun.migrations.include_name(name, "enum", {})
    )
)
"""


ODD = 'o\'clock "jobs" :a'


@pytest.mark.parametrize("options", ["", "include_schemas=True"])
def test_they_propose_only_what_is_the_hosts(
    empty_database: Engine, tmp_path: Path, options: str
) -> None:
    """Our types, functions and triggers stay in every schema, also next to the host's own."""
    pytest.importorskip("alembic_postgresql_enum")
    pytest.importorskip("alembic_utils")
    with empty_database.begin() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
        connection.execute(CreateSchema(ODD))
    migrate(empty_database)
    migrate(empty_database, schema=ODD)
    migrate(empty_database, schema="jobs")
    with empty_database.begin() as connection:
        # As in versions up to 3.
        connection.execute(
            text(
                "CREATE FUNCTION jobs.river_job_notify() RETURNS trigger LANGUAGE plpgsql"
                " AS $$ BEGIN RETURN NULL; END $$;"
                "CREATE TRIGGER river_notify AFTER INSERT ON jobs.river_job"
                " FOR EACH ROW EXECUTE FUNCTION jobs.river_job_notify()"
            )
        )
    by_hand = VERSION < (1, 18)
    if by_hand:
        options = f"include_name=riverrun.migrations.include_name, {options}"
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/chain\n")
    versions = tmp_path / "chain" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "chain" / "script.py.mako").write_text(MAKO)
    env = ENV.format(filter=FILTER if by_hand else "", options=options)
    (tmp_path / "chain" / "env.py").write_text(env)
    alembic(tmp_path, empty_database, "revision", "--autogenerate", "-m", "more")
    (made,) = versions.glob("*.py")
    assert "river" not in made.read_text().replace("riverrun.migrations", "")
    assert "color" in made.read_text()
    assert "double" in made.read_text()
    alembic(tmp_path, empty_database, "upgrade", "head")
    alembic(tmp_path, empty_database, "check")
    assert actual(empty_database)["columns"] == expected()["columns"]


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("river_job_state", "enum"),
        ("river_job_state", "type"),
        ("river_job_state_in_bitmask", "function"),
        ("public.river_job_state_in_bitmask(bitmask bit, state river_job_state)", "function"),
        ('"jobs".river_job_notify()', "function"),
        ("jobs.river_notify", "trigger"),
        ("jobs.river_job", "grant_table"),
        ("riverrun_client", "table"),
    ],
)
def test_what_is_ours(name: str, type_: str) -> None:
    """The filter recognizes our objects by every form of name that plugins pass."""
    assert not include_name(name, type_, {})


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("color", "enum"),
        ("public.double(river_job_state)", "function"),
        ("river_job", "column"),
        ("river_jobs", "table"),
        (None, "schema"),
        ("my_river_job_state", "enum"),
    ],
)
def test_what_is_the_hosts(name: str | None, type_: str) -> None:
    """Objects with similar names are the host's."""
    assert include_name(name, type_, {})

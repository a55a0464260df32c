"""The schema in an Alembic chain: this repository's own, and an application's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import IsolationLevel
from sqlalchemy import Engine, create_engine, event, text

from migrations.test_migrations import actual, expected
from riverrun.migrations import migrate
from riverrun.migrations.run import MigrationRefused

ROOT = Path(__file__).parents[2]

HOST_ENV = """
import os
from alembic import context
from sqlalchemy import create_engine

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
HOST_USERS = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "h1", None

def upgrade():
    op.create_table("host_user", sa.Column("id", sa.BigInteger, primary_key=True))

def downgrade():
    op.drop_table("host_user")
"""
HOST_JOBS = """
import riverrun.migrations
from alembic import op

revision, down_revision = "h2", "h1"

def upgrade():
    op.riverrun_migrate()

def downgrade():
    op.riverrun_migrate(0, 0)
"""


def alembic(folder: Path, engine: Engine, *arguments: str) -> str:
    """Run the alembic command in `folder` and return what it prints."""
    url = engine.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=folder,
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def host(folder: Path) -> Path:
    """Write an application's Alembic environment and return its folder."""
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/chain\n")
    versions = folder / "chain" / "versions"
    versions.mkdir(parents=True)
    (folder / "chain" / "env.py").write_text(HOST_ENV)
    (versions / "h1.py").write_text(HOST_USERS)
    (versions / "h2.py").write_text(HOST_JOBS)
    return folder


def tables(engine: Engine) -> set[str]:
    """Return the names of the tables in the default schema."""
    with engine.connect() as connection:
        names = connection.execute(
            text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = :of"),
            {"of": 2200},
        )
        return set(names.scalars())


def test_this_repositorys_chain_leads_there_and_back(empty_database: Engine) -> None:
    """`alembic upgrade head` makes River's schema, `alembic downgrade base` removes it."""
    alembic(ROOT, empty_database, "upgrade", "head")
    assert actual(empty_database) == expected()
    alembic(ROOT, empty_database, "downgrade", "river_004")
    alembic(ROOT, empty_database, "upgrade", "head")
    assert actual(empty_database) == expected()
    alembic(ROOT, empty_database, "downgrade", "base")
    assert tables(empty_database) == {"alembic_version"}


def test_this_repositorys_chain_offline(empty_database: Engine) -> None:
    """The output of `--sql` gives an empty database the same schema."""
    script = alembic(ROOT, empty_database, "upgrade", "head", "--sql")
    with empty_database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.connection.cursor().execute(script)
    assert actual(empty_database) == expected()


def test_this_repositorys_chain_in_a_schema(empty_database: Engine) -> None:
    """`-x schema=NAME` keeps everything in a schema of its own."""
    with empty_database.begin() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
    alembic(ROOT, empty_database, "-x", "schema=jobs", "upgrade", "head")
    assert actual(empty_database, "jobs") == expected()
    assert tables(empty_database) == {"alembic_version"}


def test_a_hosts_chain(empty_database: Engine, tmp_path: Path) -> None:
    """One directive in an application's revision migrates, up and down, beside its own tables."""
    folder = host(tmp_path)
    alembic(folder, empty_database, "upgrade", "head")
    assert actual(empty_database) == expected()
    assert "host_user" in tables(empty_database)
    alembic(folder, empty_database, "downgrade", "-1")
    assert tables(empty_database) == {"alembic_version", "host_user"}


def test_a_hosts_chain_offline(empty_database: Engine, tmp_path: Path) -> None:
    """The directive prints its statements in offline mode."""
    script = alembic(host(tmp_path), empty_database, "upgrade", "head", "--sql")
    with empty_database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.connection.cursor().execute(script)
    assert actual(empty_database) == expected()


def test_a_hosts_chain_takes_over_an_old_river(empty_database: Engine, tmp_path: Path) -> None:
    """The directive brings up a database at version 3, enum and all, and keeps its jobs."""
    migrate(empty_database, line="main", to=3)
    with empty_database.begin() as connection:
        connection.execute(
            text("INSERT INTO river_job (kind, max_attempts) VALUES ('old_kind', 5)")
        )
    alembic(host(tmp_path), empty_database, "upgrade", "head")
    assert actual(empty_database) == expected()
    with empty_database.connect() as connection:
        assert connection.execute(text("SELECT kind FROM river_job")).scalars().all() == [
            "old_kind"
        ]


ODD: dict[str, Any] = {"isolation_level": IsolationLevel.SERIALIZABLE, "deferrable": True}


@pytest.mark.parametrize("external", [False, True])
def test_a_connection_is_left_as_it_was_found(empty_database: Engine, external: bool) -> None:
    """Taking over an old River's tables changes no setting of Alembic's connection."""
    migrate(empty_database, line="main", to=3)
    host = create_engine(empty_database.url, pool_size=1, max_overflow=0)

    @event.listens_for(host, "connect")
    def odd(driver: Any, _: object) -> None:
        for name, value in ODD.items():
            setattr(driver, name, value)

    def found() -> dict[str, Any]:
        with host.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            return {name: getattr(driver, name) for name in (*ODD, "autocommit", "read_only")}

    before = found()
    with host.connect() as connection:
        if external:
            connection.begin()
        context = MigrationContext.configure(connection)
        with context.begin_transaction():
            op = Operations(context)
            if external:
                with pytest.raises(MigrationRefused, match="on which no transaction is open"):
                    op.riverrun_migrate()  # type: ignore[attr-defined]
                connection.rollback()
            else:
                op.riverrun_migrate()  # type: ignore[attr-defined]
    assert found() == before
    if not external:
        assert actual(empty_database) == expected()
    host.dispose()

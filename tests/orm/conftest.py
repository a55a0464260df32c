"""An application's database: mapped classes beside River's tables, made once for each file."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.schema import CreateSchema, DropSchema

from orm.tables import Base
from riverrun import Client
from riverrun.migrations import LATEST, Line, sql
from schemas import new_schema_name, search_path_url


@pytest.fixture(scope="module")
def mapped_schema(engine: Engine) -> Iterator[str]:
    """The name of a schema with all of River's, riverrun's and the application's tables."""
    name = new_schema_name("orm")
    script = "".join(sql(line, 0, LATEST[line], name) for line in Line)
    with engine.begin() as connection:
        connection.execute(CreateSchema(name))
        script = script.replace("BEGIN;", "").replace("COMMIT;", "")
        connection.connection.cursor().execute(script)
        connection.execute(text(f"SET LOCAL search_path = {name}"))
        Base.metadata.create_all(connection, checkfirst=False)
    yield name
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(DropSchema(name, cascade=True))


@pytest.fixture
def host_url(database_url: str, mapped_schema: str) -> str:
    """A URL whose search path is the application's tables; it has no jobs at first."""
    url = search_path_url(database_url, mapped_schema)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM river_job"))
    engine.dispose()
    return url.render_as_string(hide_password=False)


@pytest.fixture
def host(host_url: str) -> Iterator[Engine]:
    """The application's engine."""
    host = create_engine(host_url)
    yield host
    host.dispose()


@pytest.fixture
def client(host: Engine) -> Client:
    """A client on the application's engine that only inserts."""
    return Client(host)

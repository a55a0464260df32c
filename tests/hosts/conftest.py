"""A host's database: its own table beside River's; and what is announced there."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, create_engine, text

from hosts.tables import Base
from riverrun import Client
from schemas import search_path_url
from waiting import DEADLINE_S

Announced = Callable[[], list[str]]


@pytest.fixture
def host_url(database_url: str, schema: str) -> str:
    """A URL that leads to the test's schema, in which the host has a table, too."""
    url = search_path_url(database_url, schema)
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()
    return url.render_as_string(hide_password=False)


@pytest.fixture
def host(host_url: str) -> Iterator[Engine]:
    """The host's engine."""
    host = create_engine(host_url)
    yield host
    host.dispose()


@pytest.fixture
def client(host: Engine) -> Client:
    """A client on the host's engine, which only inserts."""
    return Client(host)


@pytest.fixture
def announced(host_url: str, schema: str, client: Client) -> Iterator[Announced]:
    """What was announced since the last look; a mark of our own shows when that is all."""
    came: list[str] = []
    with psycopg.connect(host_url.replace("+psycopg", ""), autocommit=True) as driver:
        channel = f"{schema!s}.river_insert"
        driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        driver.add_notify_handler(lambda note: came.append(note.payload))

        def read() -> list[str]:
            assert client.flush_announcements(DEADLINE_S), "not all was announced"
            driver.execute("SELECT pg_notify(%s, 'mark')", [channel])
            driver.execute("SELECT 1")
            payloads, came[:] = [each for each in came if each != "mark"], []
            return payloads

        yield read


@pytest.fixture
def other(empty_database: Engine) -> Engine:
    """The engine of another database, with the host's table and none of River's."""
    Base.metadata.create_all(empty_database)
    return empty_database


@pytest.fixture
def count(host: Engine) -> Callable[[], tuple[int, int]]:
    """Count the host's rows and the jobs, and delete them."""

    def read() -> tuple[int, int]:
        with host.begin() as connection:
            rows = connection.execute(text("DELETE FROM host_row")).rowcount
            jobs = connection.execute(text("DELETE FROM river_job")).rowcount
            return rows, jobs

    return read

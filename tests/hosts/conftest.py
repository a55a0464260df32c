"""A host's database: its own table beside River's; and what is announced there."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from announcements import Payloads, listening
from hosts.tables import Base
from riverrun import Client
from schemas import search_path_url
from waiting import DEADLINE_S


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
def announced(host_url: str, schema: str, client: Client) -> Iterator[Payloads]:
    """What was announced since the last look."""
    with listening(host_url, schema) as payloads:

        def read() -> list[str]:
            assert client.flush_announcements(DEADLINE_S), "not all was announced"
            return payloads()

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

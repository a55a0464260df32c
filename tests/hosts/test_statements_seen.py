"""A host that listens to its statements, or logs them, sees those of the verbs, too."""

import logging
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from riverrun import Client, JobArgs
from riverrun.errors import SchemaMissing

INSERT = "INSERT INTO"


@attrs.frozen
class Note(JobArgs, kind="seen_note"):
    """Args of a job."""


@pytest.fixture
def host(engine: Engine) -> Iterator[Engine]:
    """An engine of a host."""
    own = create_engine(engine.url)
    yield own
    own.dispose()


def insert(host: Engine, schema: str) -> None:
    """Insert a job in a session, and one on a connection that has executed nothing yet."""
    client = Client(host, schema=schema)
    with Session(host) as session, session.begin():
        client.insert(session, Note())
    with host.connect() as connection:
        client.insert(connection, Note())
        connection.commit()


@pytest.mark.parametrize("by", ["logger", "echo"])
def test_in_the_log(host: Engine, schema: str, caplog: Any, by: str) -> None:
    """A log of SQL has them, whether `echo` or the level of SQLAlchemy's logger asks for it."""
    insert(host, schema)
    assert INSERT not in caplog.text
    if by == "echo":
        host.echo = True
    else:
        caplog.set_level(logging.INFO, "sqlalchemy.engine")
    insert(host, schema)
    assert sum(INSERT in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize(
    "name",
    ["before_cursor_execute", "after_cursor_execute", "before_execute", "after_execute"],
)
@pytest.mark.parametrize("everywhere", [False, True])
def test_by_listeners(host: Engine, schema: str, name: str, everywhere: bool) -> None:
    """A listener to one engine, or to all engines, gets them."""
    seen: list[str] = []

    def listen(*given: Any) -> None:
        seen.append(str(given))

    target = Engine if everywhere else host
    event.listen(target, name, listen)
    try:
        insert(host, schema)
    finally:
        event.remove(target, name, listen)
    assert len(seen) >= 2


def test_by_listeners_of_the_driver_s_calls(host: Engine, schema: str) -> None:
    """A listener to the dialect, which may execute the statement itself, gets them."""
    seen: list[str] = []

    @event.listens_for(host, "do_execute")
    def listen(_cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    insert(host, schema)
    assert sum(INSERT in statement for statement in seen) == 2


def test_errors(host: Engine) -> None:
    """A listener to errors gets those of verbs."""
    seen: list[Any] = []
    event.listen(host, "handle_error", lambda context: seen.append(context.sqlalchemy_exception))
    with host.connect() as connection, pytest.raises(SchemaMissing):
        Client(host, schema="nowhere").insert(connection, Note())
    assert [type(error) for error in seen] == [ProgrammingError]

"""insert_from in databases that do not use UTF-8."""

from collections.abc import Iterator

import attrs
import pytest
from sqlalchemy import Engine, create_engine, literal, make_url, select, text
from sqlalchemy.orm import Session

from riverrun import Client, InsertOpts, JobArgs, UniqueOpts
from riverrun.errors import InvalidArgs
from riverrun.migrations import migrate

UNIQUE = InsertOpts(unique=UniqueOpts(by_args=True), metadata={"note": "ä"})


@attrs.frozen
class Note(JobArgs, kind="encoded_note"):
    """One text that comes from a column, and one that is a default."""

    given: str
    default: str = "<ö>"


@attrs.frozen
class Foreign(JobArgs, kind="foreign_note"):
    """A default that cannot be encoded in LATIN1."""

    given: str
    default: str = "€"


@pytest.fixture
def latin(server_url: str) -> Iterator[Engine]:
    """A database whose encoding is LATIN1."""
    server = create_engine(server_url, isolation_level="AUTOCOMMIT")
    name = "riverrun_latin_from"
    with server.connect() as connection:
        connection.execute(
            text(
                f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
                " TEMPLATE template0"
            )
        )
    engine = create_engine(make_url(server_url).set(database=name))
    migrate(engine)
    yield engine
    engine.dispose()
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def test_a_database_that_is_not_utf8(latin: Engine) -> None:
    """Texts, defaults, metadata and unique keys equal those of insert_many, or are refused."""
    client = Client(latin)
    with Session(latin) as session:
        source = select(literal("ü<&>").label("given"))
        assert client.insert_from(session, source, Note, UNIQUE) == 1
        again = client.insert(session, Note("ü<&>"), UNIQUE)
        assert again.skipped_as_duplicate
        assert again.job.args == {"given": "ü<&>", "default": "<ö>"}
        assert again.job.metadata == {"note": "ä"}
        with pytest.raises(InvalidArgs, match="€"):
            client.insert_from(session, source, Foreign)

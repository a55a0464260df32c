"""insert_from in databases that do not use UTF-8."""

from collections.abc import Iterator

import attrs
import pytest
from sqlalchemy import Engine, literal, select
from sqlalchemy.orm import Session

from databases import own_database
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
    with own_database(server_url, encoding="LATIN1") as engine:
        migrate(engine)
        yield engine


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

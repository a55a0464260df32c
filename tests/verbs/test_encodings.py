"""Databases in other encodings than UTF8: what they can hold is kept, the rest is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from databases import own_database
from riverrun import Client, JobArgs, QueueConfig, UniqueOpts, Workers
from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.events import JobCompleted
from riverrun.jobs.options import InsertOpts
from riverrun.migrations import migrate
from riverrun.verbs import get
from waiting import DEADLINE_S

REPLACES = InsertOpts(unique=UniqueOpts(by_queue=True, on_conflict="replace"))


@attrs.frozen
class Note(JobArgs, kind="note"):
    """Args of one text."""

    words: str


# A database's encoding, the client's, a text that it holds, and one that it lacks.
ENCODINGS = {
    "LATIN1": ("LATIN1", None, "na\u00efve", "5 \u20ac"),
    "WIN1252": ("WIN1252", None, "5 \u20ac", "\u65e5"),
    "EUC_JP": ("EUC_JP", None, "\u65e5\u672c", "\U0001f600"),
    "a client's": ("UTF8", "LATIN1", "5 \u20ac \U0001f600", None),
    "SQL_ASCII": ("SQL_ASCII", "UTF8", "5 \u20ac", None),
}


@attrs.frozen
class Place:
    """A database and what it can hold."""

    engine: Engine
    held: str
    lacked: str | None


@pytest.fixture(scope="module", params=ENCODINGS)
def place(request: pytest.FixtureRequest, server_url: str) -> Iterator[Place]:
    """A migrated database in each encoding."""
    encoding, client_encoding, held, lacked = ENCODINGS[request.param]
    options: dict[str, Any] = {}
    if client_encoding is not None:
        options["connect_args"] = {"client_encoding": client_encoding}
    with own_database(server_url, encoding=encoding, **options) as engine:
        migrate(engine)
        yield Place(engine, held, lacked)


INSERTS: dict[str, Callable[[Client, Any, Any, InsertOpts | None], object]] = {
    "insert": lambda client, where, args, opts: client.insert(where, args, opts),
    "insert_many": lambda client, where, args, opts: client.insert_many(
        where, [(Note("a"), opts), (args, opts)]
    ),
    "insert_many_fast": lambda client, where, args, opts: client.insert_many_fast(
        where, [(Note("a"), opts), (args, opts)]
    ),
}


@pytest.mark.parametrize("insert", INSERTS.values(), ids=INSERTS)
@pytest.mark.parametrize("own", [True, False], ids=["own transaction", "the host's"])
def test_refuses_what_the_database_lacks(
    place: Place, insert: Callable[..., object], own: bool
) -> None:
    """The error names the field and the character, and the host's transaction goes on."""
    if place.lacked is None:
        pytest.skip("it holds everything")
    client = Client(place.engine)
    with Session(place.engine) as session:
        where = place.engine if own else session
        with pytest.raises(InvalidArgs, match="args of kind 'note' cannot be stored"):
            insert(client, where, Note(place.lacked), None)
        with pytest.raises(InvalidOption, match="metadata"):
            insert(client, where, Note("a"), InsertOpts(metadata={"a": place.lacked}))
        with pytest.raises(InvalidOption, match="tag"):
            insert(client, where, Note("a"), InsertOpts(tags=[place.lacked]))
        assert session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("insert", INSERTS.values(), ids=INSERTS)
@pytest.mark.parametrize("own", [True, False], ids=["own transaction", "the host's"])
def test_keeps_what_the_database_has(
    place: Place, insert: Callable[..., object], own: bool
) -> None:
    """What the encoding can hold is stored, worked and read as it was given."""
    workers = Workers()

    @workers.register
    def note(args: Note) -> None:
        pass

    client = Client(place.engine, workers=workers, queues={"default": QueueConfig()})
    opts = InsertOpts(metadata={"a": place.held})
    done = client.subscribe(JobCompleted)
    with client, Session(place.engine) as session:
        where = place.engine if own else session
        insert(client, where, Note(place.held), opts)
        session.commit()
        while (event := done.get(timeout=DEADLINE_S)).job.args["words"] != place.held:
            pass
    job = get(place.engine, event.job.id)
    assert job.metadata["a"] == place.held


@pytest.mark.parametrize("own", [True, False], ids=["own transaction", "the host's"])
def test_a_unique_job_is_returned_as_it_was_given(place: Place, own: bool) -> None:
    """An inserted unique job is not sent back: the session may lack its characters."""
    opts = InsertOpts(unique=UniqueOpts(by_args=True), queue="unique", metadata={"a": place.held})
    with Session(place.engine) as session:
        result = Client(place.engine).insert(
            place.engine if own else session, Note(f"{place.held} {own}"), opts
        )
        session.commit()
    assert not result.skipped_as_duplicate
    assert result.job == get(place.engine, result.job.id)


def test_a_duplicate_replaces_with_what_the_database_has(place: Place) -> None:
    """What a duplicate changes is stored like what is inserted."""
    client = Client(place.engine)
    opts = attrs.evolve(REPLACES, queue="replaced")
    first = client.insert(place.engine, Note("a"), opts).job
    client.insert(place.engine, Note(place.held), opts)
    assert get(place.engine, first.id).args == {"words": place.held}

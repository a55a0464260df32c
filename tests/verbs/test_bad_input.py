"""Invalid input is refused with a clear message, and nothing is written."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

import attrs
import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import InternalError
from sqlalchemy.orm import Session

from databases import own_database
from riverrun.client.client import Client
from riverrun.errors import (
    InsertIgnored,
    InvalidArgs,
    InvalidOption,
    NotATransaction,
    SchemaMissing,
    TransactionClosed,
    WrongDatabase,
)
from riverrun.execution.workers import Workers
from riverrun.jobs.args import JobArgs, RawArgs, decode
from riverrun.jobs.options import InsertOpts
from riverrun.models import Job
from riverrun.policies.uniqueness import UniqueOpts
from riverrun.verbs import (
    cancel,
    claim,
    complete,
    delete,
    discard,
    fail,
    get,
    get_live_log,
    insert,
    insert_many,
    insert_many_fast,
    key_holder,
    place_in_line,
    reschedule_where,
    retry,
    update,
)
from riverrun.verbs.schedule import schedule
from verbs.joins import KINDS, opened

T = TypeVar("T")


@attrs.frozen
class Box(JobArgs, Generic[T], kind="box"):
    """Args of any type, set by the worker's annotation."""

    item: T


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    """Args that may hold anything."""

    name: Any = "Ada"


def count(engine: Engine, schema: str) -> int:
    """Return how many jobs are committed."""
    with engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: schema})
        return connection.execute(select(func.count()).select_from(Job)).scalar_one()


VERBS: dict[str, Callable[..., object]] = {
    "insert": lambda where, schema: insert(where, Greet(), schema=schema),
    "insert_many": lambda where, schema: insert_many(where, [Greet()], schema=schema),
    "insert_many_fast": lambda where, schema: insert_many_fast(where, [Greet()], schema=schema),
    "claim": lambda where, schema: claim(where, client_id="me", schema=schema),
    "get": lambda where, schema: get(where, 1, schema=schema),
    "cancel": lambda where, schema: cancel(where, 1, schema=schema),
    "retry": lambda where, schema: retry(where, 1, schema=schema),
    "schedule": lambda where, schema: schedule(where, schema=schema),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_missing_tables_are_named(engine: Engine, kind: str, verb: str) -> None:
    """Without tables the error names one, the database and the command that makes them."""
    with opened(kind, engine) as where, pytest.raises(SchemaMissing) as caught:
        VERBS[verb](where, "nowhere")
    message = str(caught.value)
    assert "nowhere" in message
    assert repr(engine.url.database) in message
    assert "`riverrun migrate up --schema nowhere`" in message


@pytest.mark.parametrize("name", ["Mail", "a b", "", "-a", "a--b", "x" * 65, 7, "a\n", "a;b"])
def test_refuses_queues(engine: Engine, schema: str, name: object) -> None:
    """A queue whose name River refuses is refused, by inserts and by claims."""
    with pytest.raises(InvalidOption, match="queue"):
        insert(engine, Greet(), InsertOpts(queue=name), schema=schema)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="queue"):
        claim(engine, name, client_id="me", schema=schema)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"tags": ["ab"]},
        {"tags": ["a b c"]},
        {"tags": ["x" * 256]},
        {"tags": "abc"},
        {"tags": [None]},
        {"priority": 0},
        {"priority": 5},
        {"priority": True},
        {"max_attempts": 0},
        {"max_attempts": 32_768},
        {"scheduled_at": datetime(2026, 1, 1)},
        {"scheduled_at": "tomorrow"},
        {"metadata": [1]},
        {"unique": True},
    ],
)
def test_refuses_options(options: dict[str, Any]) -> None:
    """An option that a row cannot hold is refused by name when it is set."""
    with pytest.raises(InvalidOption, match=next(iter(options)).rstrip("s")):
        InsertOpts(**options)


BAD_ARGS = {
    "object": (Greet(object()), r"\$\.name is of type object"),
    "bytes": (Greet(b"x"), "bytes|surrogate|type"),
    "NUL": (Greet("a\x00b"), r"\$\.name holds a NUL"),
    "NUL in a key": (RawArgs(kind="greet", encoded={"a\x00": 1}), "NUL"),
    "surrogate": (Greet("\ud800"), r"\$\.name holds half of a surrogate pair"),
    "NaN": (Greet([1.0, float("nan")]), r"\$\.name\[1\] is nan"),
    "infinity": (Greet(float("inf")), r"\$\.name is inf"),
    "key": (RawArgs(kind="greet", encoded={1: 2}), "keys of JSON objects are strings"),  # type: ignore[dict-item]
    "list": (RawArgs(kind="greet", encoded=[1]), "not to a JSON object"),  # type: ignore[arg-type]
    "10 MB": (Greet("x" * 10_000_000), "10,000,011 bytes of JSON, the limit is"),
}


@pytest.mark.parametrize("name", sorted(set(BAD_ARGS) - {"bytes"}))
@pytest.mark.parametrize("many", [insert_many, insert_many_fast])
def test_refuses_args_and_the_batch(
    engine: Engine, schema: str, many: Callable[..., object], name: str
) -> None:
    """Args that jsonb cannot hold are refused with the place, and no job of a batch is inserted."""
    args, message = BAD_ARGS[name]
    with pytest.raises(InvalidArgs, match=message):
        insert(engine, args, schema=schema)
    with pytest.raises(InvalidArgs, match=message) as caught:
        many(engine, [Greet(), args, Greet()], schema=schema)
    assert "job 1 of the batch" in caught.value.__notes__[0]
    assert count(engine, schema) == 0


@pytest.mark.parametrize("metadata", [{"a": "\x00"}, {"a": float("nan")}, {"a": object()}])
def test_refuses_metadata(engine: Engine, schema: str, metadata: dict[str, Any]) -> None:
    """Metadata that jsonb cannot hold is refused."""
    with pytest.raises(InvalidOption, match="metadata"):
        insert(engine, Greet(), InsertOpts(metadata=metadata), schema=schema)


@pytest.mark.parametrize("args", [None, "greet", {"name": "Ada"}, Greet, object()])
def test_refuses_what_are_no_args(engine: Engine, schema: str, args: object) -> None:
    """An object without a kind, and a class of args, are refused."""
    with pytest.raises((InvalidArgs, InvalidOption)):
        insert(engine, args, schema=schema)
    assert count(engine, schema) == 0


def test_refuses_an_empty_batch_and_odd_options(engine: Engine, schema: str) -> None:
    """A batch of nothing, a dict for options and a naive time are refused."""
    with pytest.raises(InvalidOption, match="at least one job"):
        insert_many(engine, [], schema=schema)
    with pytest.raises(InvalidOption, match="opts"):
        insert(engine, Greet(), {"priority": 1}, schema=schema)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="now"):
        insert(engine, Greet(), schema=schema, now=datetime(2026, 1, 1))


def test_the_transaction_goes_on_after_a_refusal(engine: Engine, schema: str) -> None:
    """Input is refused without a statement, so the caller's transaction can continue."""
    with Session(engine) as session:
        insert(session, Greet(), schema=schema)
        with pytest.raises(InvalidArgs):
            insert(session, Greet("\x00"), schema=schema)
        session.commit()
    assert count(engine, schema) == 1


@pytest.mark.parametrize("many", [insert_many, insert_many_fast])
def test_the_databases_own_refusal(
    engine: Engine, schema: str, many: Callable[..., object]
) -> None:
    """A refusal by the database is SQLAlchemy's error, by INSERT as by COPY."""
    with engine.connect() as connection:
        reader = connection.execution_options(postgresql_readonly=True)
        with pytest.raises(InternalError, match="read-only transaction"):
            many(reader, [Greet(), Greet()], schema=schema)


def test_refuses_what_is_closed(engine: Engine, schema: str) -> None:
    """A closed Connection, and a Session closed for good, are refused with that reason."""
    connection = engine.connect()
    connection.close()
    with pytest.raises(TransactionClosed, match="Connection"):
        insert(connection, Greet(), schema=schema)
    session = Session(engine, close_resets_only=False)
    session.close()
    with pytest.raises(TransactionClosed, match="Session"):
        insert(session, Greet(), schema=schema)


def test_a_session_that_close_only_resets_goes_on(engine: Engine, schema: str) -> None:
    """An ordinary Session can be used again after close()."""
    session = Session(engine)
    session.close()
    insert(session, Greet(), schema=schema)
    session.commit()
    session.close()
    assert count(engine, schema) == 1


@pytest.mark.parametrize("tx", [None, "postgresql://", object(), Greet()])
def test_refuses_what_is_no_transaction(tx: Any) -> None:
    """The error for anything but a Session, Connection or Engine names what was passed."""
    with pytest.raises(NotATransaction, match=type(tx).__name__):
        insert(tx, Greet())


def test_the_error_shows_how_to_pass_an_async_session() -> None:
    """An AsyncSession is refused with advice on how to pass it."""
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import AsyncSession

    with pytest.raises(NotATransaction, match="run_sync"):
        insert(AsyncSession(), Greet())  # type: ignore[arg-type]


@pytest.fixture
def elsewhere(server_url: str) -> Iterator[Engine]:
    """An engine on another database of the same server."""
    with own_database(server_url) as other:
        yield other


@pytest.mark.parametrize("kind", KINDS)
def test_client_refuses_another_database(
    engine: Engine, elsewhere: Engine, schema: str, kind: str
) -> None:
    """A client refuses a transaction of another database, and names both."""
    client = Client(engine, schema=schema)
    for verb in (client.insert, lambda w, a: client.insert_many(w, [a])):
        with opened(kind, elsewhere) as where, pytest.raises(WrongDatabase) as caught:
            verb(where, Greet())
        assert f"{elsewhere.url.database}@" in str(caught.value)
        assert f"{engine.url.database}@" in str(caught.value)
    assert count(engine, schema) == 0


def test_generic_args_go_by_their_workers_annotation(engine: Engine, schema: str) -> None:
    """Args of a generic class are stored and checked by the annotation of its worker."""

    def unpack(args: Box[UUID]) -> None:
        """Work."""

    workers = Workers()
    workers.register(unpack)
    client = Client(engine, schema=schema, workers=workers)
    key = UUID(int=7)
    job = client.insert(engine, Box(key)).job
    assert job.args == {"item": str(key)}
    assert decode("box", client.get(engine, job.id).args, Box[UUID]) == Box(key)
    with pytest.raises(InvalidArgs, match="UUID"):
        client.insert_many(engine, [Box(key), Box(str(key))])


def test_a_key_that_was_not_flushed(engine: Engine, schema: str) -> None:
    """An id that is None is refused at insert, and the error asks about a flush."""

    @attrs.frozen
    class Credit(JobArgs, kind="credit"):
        user_id: int

    for verb in (insert, lambda where, args, **how: insert_many(where, [args], **how)):
        with pytest.raises(
            InvalidArgs, match=r"\$\.user_id is None; expected int; did you flush\?"
        ):
            verb(engine, Credit(None), schema=schema)  # type: ignore[arg-type, operator]
    assert count(engine, schema) == 0


@pytest.mark.parametrize("verb", [get, cancel, retry, delete, update])
def test_refuses_what_is_no_id(engine: Engine, schema: str, verb: Callable[..., Any]) -> None:
    """A job in place of its id, a text or a number out of range leaves the transaction usable."""
    with Session(engine) as session:
        job = insert(session, RawArgs(kind="box", encoded={}), schema=schema).job
        for wrong in (job, "x", None, True, 1.5, 2**63, 10**5000):
            with pytest.raises(InvalidOption, match=r"job_id is .*; expected the id of a job"):
                verb(session, wrong, schema=schema)
        assert verb(session, job.id, schema=schema).id == job.id


@pytest.mark.parametrize("verb", [get_live_log, key_holder, place_in_line])
def test_reads_refuse_what_is_no_id(engine: Engine, schema: str, verb: Callable[..., Any]) -> None:
    """A read by something that is no id leaves the transaction usable, too."""
    with Session(engine) as session:
        for wrong in ("x", None, 1.5, 2**63):
            with pytest.raises(InvalidOption, match=r"job_id is .*; expected the id of a job"):
                verb(session, wrong, schema=schema)
        assert session.scalar(select(1)) == 1


def test_refuses_what_was_not_claimed(engine: Engine, schema: str) -> None:
    """The id in place of a claimed job, a text in place of its error, and such are named."""
    insert(engine, RawArgs(kind="box", encoded={}), schema=schema)
    with pytest.raises(InvalidOption, match="client_id is 5; expected a text"):
        claim(engine, client_id=5, schema=schema)  # type: ignore[arg-type]
    [job] = claim(engine, client_id="me", schema=schema)
    end: Any
    for end in (complete, partial(fail, error=OSError()), partial(discard, error=OSError())):
        with pytest.raises(InvalidOption, match=r"job is 1; expected the JobRow that claim\(\)"):
            end(engine, job=1, schema=schema)
    for end in (fail, discard):
        for wrong in ("no address", OSError, None):
            with pytest.raises(InvalidOption, match=r"error is .*; expected an exception, such as"):
                end(engine, job, wrong, schema=schema)
    assert complete(engine, job, schema=schema) == "completed"


@pytest.mark.parametrize("item", [(), (RawArgs(kind="box", encoded={}), None, None)])
def test_refuses_tuples_that_are_no_pairs(engine: Engine, schema: str, item: object) -> None:
    """A batch is refused by name if one of it is neither args nor a pair."""
    client = Client(engine, workers=Workers(), schema=schema)
    with pytest.raises(InvalidOption, match="args is "):
        client.insert_many(engine, [item])


@pytest.mark.parametrize("delay", [2**62, timedelta.max], ids=str)
def test_refuses_a_delay_that_no_time_can_hold(
    engine: Engine, schema: str, delay: float | timedelta
) -> None:
    """A reschedule names a delay that is too long."""
    with pytest.raises(InvalidOption, match="delay is"):
        reschedule_where(engine, Job.queue == "q", delay=delay, schema=schema)


@pytest.mark.parametrize("unique", [None, UniqueOpts(by_args=True)])
def test_a_trigger_that_ignores_an_insert(
    engine: Engine, schema: str, unique: UniqueOpts | None
) -> None:
    """An insert says how many jobs the database has not inserted, and on an Engine inserts none."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.ignore() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER ignore BEFORE INSERT ON {schema}.river_job FOR EACH ROW"
            f" WHEN (NEW.kind = 'bad') EXECUTE FUNCTION {schema}.ignore()"
        )
    opts = InsertOpts(unique=unique)
    bad, good = RawArgs(kind="bad", encoded={}), RawArgs(kind="good", encoded={})
    with pytest.raises(InsertIgnored, match="inserted 0 of 1 job, without an error: a trigger"):
        insert(engine, bad, opts, schema=schema)
    for verb in (insert_many, insert_many_fast):
        with pytest.raises(InsertIgnored, match="inserted 1 of 2 jobs"):
            verb(engine, [(good, opts), (bad, opts)], schema=schema)
    assert count(engine, schema) == 0


def test_an_error_shows_any_value() -> None:
    """The text of a refusal never fails, whatever was refused."""
    with pytest.raises(InvalidOption) as refused:
        InsertOpts(priority=10**5000)
    shown = "priority is a value of type int that cannot be shown; expected an int from 1 to 4"
    assert str(refused.value) == shown

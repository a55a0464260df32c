"""A host on psycopg2 or asyncpg: jobs join its transactions, connections stay as they are."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import psycopg2.extras
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from riverrun import Client, JobArgs, JobContext, UniqueOpts, Workers
from riverrun.jobs.options import InsertOpts
from riverrun.testing import drain, drain_async, rolled_back, rolled_back_async

UNIQUE = InsertOpts(unique=UniqueOpts(by_args=True))
SETTINGS = (
    "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'transaction%'"
    " UNION ALL SELECT 'listens', channel FROM pg_listening_channels() AS channel"
    " UNION ALL SELECT 'locks', locktype FROM pg_locks"
    " WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
    " UNION ALL SELECT 'temporary', relname FROM pg_class WHERE relpersistence = 't'"
)


@attrs.frozen
class Note(JobArgs, kind="driver_note"):
    """Args that no encoding but UTF-8 holds."""

    words: str = "naïve, 5 €"


workers = Workers()


@workers.register
def note(args: Note, ctx: JobContext) -> None:
    """Do the work."""


PSYCOPG2: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "AUTOCOMMIT": {"isolation_level": "AUTOCOMMIT"},
    "SERIALIZABLE": {"isolation_level": "SERIALIZABLE"},
    "REPEATABLE READ by option": {"execution_options": {"isolation_level": "REPEATABLE READ"}},
    "dictionaries": {"connect_args": {"cursor_factory": psycopg2.extras.DictCursor}},
    "settings": {
        "connect_args": {"options": "-cDateStyle=German -cTimeZone=Asia/Kathmandu -cjit=off"}
    },
    "client_encoding": {"connect_args": {"client_encoding": "LATIN1"}},
    "serializable by default": {
        "connect_args": {"options": "-cdefault_transaction_isolation=serializable"}
    },
    "no reset": {"pool_reset_on_return": None},
    "values_only": {"executemany_mode": "values_only"},
}
ASYNCPG: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "AUTOCOMMIT": {"isolation_level": "AUTOCOMMIT"},
    "SERIALIZABLE": {"isolation_level": "SERIALIZABLE"},
    "REPEATABLE READ by option": {"execution_options": {"isolation_level": "REPEATABLE READ"}},
    "no cache of statements": {
        "connect_args": {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    },
    "settings": {
        "connect_args": {"server_settings": {"DateStyle": "German", "TimeZone": "Asia/Kathmandu"}}
    },
    "serializable by default": {
        "connect_args": {"server_settings": {"default_transaction_isolation": "serializable"}}
    },
    "no reset": {"pool_reset_on_return": None},
}


def snapshot(connection: Connection) -> dict[str, Any]:
    """Return what a host could have set on a connection, and what its server says."""
    dbapi: Any = connection.connection.dbapi_connection
    names = ("autocommit", "isolation_level", "readonly", "deferrable", "cursor_factory")
    found = {name: getattr(dbapi, name, None) for name in (*names, "encoding")}
    found["notices"] = type(getattr(dbapi, "notices", None))
    with connection.begin():
        found["server"] = [tuple(row) for row in connection.execute(text(SETTINGS))]
    return found


def insert_by_session(client: Client, engine: Engine) -> None:
    """Insert in the host's transaction, one and many, unique ones and by COPY."""
    with Session(engine) as session:
        first = client.insert(session, Note("unique"), UNIQUE)
        assert client.insert(session, Note("unique"), UNIQUE).skipped_as_duplicate
        [again] = client.insert_many(session, [(Note("unique"), UNIQUE)])
        assert again.job == first.job
        client.insert_many(session, [Note()])
        client.insert_many_fast(session, [Note(), Note()])
        assert client.get(session, first.job.id).args == {"words": "unique"}
        client.cancel(session, first.job.id)
        session.commit()


def insert_by_connection(client: Client, engine: Engine) -> None:
    """Insert in a transaction that the host begins, and in a savepoint that it gives up."""
    with engine.begin() as connection:
        kept = client.insert(connection, Note()).job
        if not connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]
            with connection.begin_nested() as savepoint:
                client.insert(connection, Note("given up"))
                savepoint.rollback()
    assert client.get(client.engine, kept.id).args == {"words": Note().words}


def give_up(client: Client, engine: Engine) -> None:
    """Insert in a transaction that the host rolls back."""
    with Session(engine) as session:
        client.insert_many(session, [Note("given up")] * 2)
        session.rollback()


def undo(client: Client, engine: Engine) -> None:
    """Insert and work a job in a test's transaction."""
    with rolled_back(engine) as session:
        client.insert(session, Note("given up"))
        session.commit()
        assert [each.state for each in drain(session, client)] == ["completed"]


OPERATIONS: tuple[Callable[[Client, Engine], None], ...] = (
    insert_by_session,
    insert_by_connection,
    give_up,
    undo,
)


@pytest.fixture
def client(engine: Engine, schema: str) -> Client:
    """The client, with an engine of psycopg 3."""
    return Client(engine, schema=schema, workers=workers)


def texts(client: Client) -> list[str]:
    """Return what the inserted jobs say."""
    return sorted(str(job.args["words"]) for job in client.list_jobs(client.engine).jobs)


@pytest.fixture(params=PSYCOPG2)
def host(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Engine]:
    """A host's engine of psycopg2, with one connection."""
    options = {"pool_size": 1, "max_overflow": 0, **PSYCOPG2[request.param]}
    own = create_engine(engine.url.set(drivername="postgresql+psycopg2"), **options)
    yield own
    own.dispose()


def test_psycopg2(host: Engine, client: Client) -> None:
    """Each operation joins a transaction of psycopg2's, and leaves its connection as it was."""
    with host.connect() as connection:
        before = snapshot(connection)
    autocommit = before["autocommit"]
    for operation in OPERATIONS:
        operation(client, host)
        with host.connect() as connection:
            assert snapshot(connection) == before, operation.__name__
    # In autocommit what the host gives up is there: that is what it asked for.
    given_up = [each for each in texts(client) if each == "given up"]
    assert len(given_up) == (2 if autocommit else 0)
    assert len(texts(client)) - len(given_up) == 5


async def insert_by_async_session(client: Client, engine: AsyncEngine) -> None:
    """Insert in the host's transaction, by `run_sync` and by the methods for async code."""
    async with AsyncSession(engine) as session:
        first = await client.insert_async(session, Note("unique"), UNIQUE)
        again = await session.run_sync(client.insert, Note("unique"), UNIQUE)
        assert again.skipped_as_duplicate
        many = await session.run_sync(client.insert_many, [Note(), (Note("unique"), UNIQUE)])
        assert many[1].job == first.job
        await session.run_sync(client.insert_many_fast, [Note(), Note()])
        got = await session.run_sync(client.get, first.job.id)
        assert got.args == {"words": "unique"}
        await session.run_sync(client.cancel, first.job.id)
        await session.commit()


async def insert_by_async_connection(client: Client, engine: AsyncEngine) -> None:
    """Insert in a transaction that the host begins, and in a savepoint that it gives up."""
    async with engine.begin() as connection:
        await connection.run_sync(client.insert, Note())
        driver: Any = await connection.get_raw_connection()
        if driver.dbapi_connection.autocommit:
            return
        async with connection.begin_nested() as savepoint:
            await connection.run_sync(client.insert, Note("given up"))
            await savepoint.rollback()


async def give_up_async(client: Client, engine: AsyncEngine) -> None:
    """Insert in a transaction that the host rolls back."""
    async with AsyncSession(engine) as session:
        await session.run_sync(client.insert_many, [Note("given up")] * 2)
        await session.rollback()


async def undo_async(client: Client, engine: AsyncEngine) -> None:
    """Insert and work a job in a test's transaction."""
    async with rolled_back_async(engine) as session:
        await client.insert_async(session, Note("given up"))
        await session.commit()
        assert [each.state for each in await drain_async(session, client)] == ["completed"]


ASYNC_OPERATIONS = (insert_by_async_session, insert_by_async_connection, give_up_async, undo_async)


@asynccontextmanager
async def async_host(engine: Engine, options: dict[str, Any]) -> AsyncIterator[AsyncEngine]:
    """Yield a host's engine of asyncpg, with one connection."""
    url = engine.url.set(drivername="postgresql+asyncpg")
    own = create_async_engine(url, pool_size=1, max_overflow=0, **options)
    try:
        yield own
    finally:
        await own.dispose()


@pytest.mark.parametrize("kind", ASYNCPG)
def test_asyncpg(kind: str, engine: Engine, client: Client) -> None:
    """Each operation joins a transaction of asyncpg's, and leaves its connection as it was."""

    async def test() -> None:
        async with async_host(engine, ASYNCPG[kind]) as host:
            async with host.connect() as connection:
                before = await connection.run_sync(snapshot)
            for operation in ASYNC_OPERATIONS:
                await operation(client, host)
                async with host.connect() as connection:
                    assert await connection.run_sync(snapshot) == before, operation.__name__

    asyncio.run(test())
    given_up = [each for each in texts(client) if each == "given up"]
    assert len(given_up) == (2 if kind == "AUTOCOMMIT" else 0)
    assert len(texts(client)) - len(given_up) == 5


def test_a_codec_of_the_hosts(engine: Engine, client: Client) -> None:
    """A host's own codecs of asyncpg, and listeners to its statements, change nothing of a job."""
    seen: list[str] = []

    async def test() -> None:
        async with async_host(engine, {"json_deserializer": lambda _: "the host's"}) as host:
            event.listen(
                host.sync_engine, "before_cursor_execute", lambda *args: seen.append(args[2])
            )
            await insert_by_async_session(client, host)
            async with host.connect() as connection:
                read = await connection.scalar(text("SELECT CAST('{}' AS jsonb)"))
                assert read == "the host's"

    asyncio.run(test())
    assert sum("INSERT INTO" in each for each in seen) >= 3
    assert len(texts(client)) == 4

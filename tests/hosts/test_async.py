"""Async hosts: insert_async takes everything async, insert everything sync, and each says so."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from announcements import Payloads
from hosts.tables import Row
from riverrun import Client, InsertOpts, RawArgs, verbs
from riverrun.errors import NotATransaction, TransactionClosed

JOB = RawArgs(kind="greet", encoded={})
ANNOUNCED = '{"queue": "default"}'
INNER = InsertOpts(queue="inner")
DRIVERS = ["psycopg", "asyncpg"]
KINDS = ["session", "twophase", "scoped", "own class", "connection", "on a connection"]


class OwnSession(AsyncSession):
    """A host's own class, as SQLModel's."""


def _engine(host_url: str, schema: str, driver: str, **options: Any) -> AsyncEngine:
    url = make_url(host_url).set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg":
        url = url.set(query={"host": url.query["host"], "port": url.query["port"]})
        options["connect_args"] = {"server_settings": {"search_path": f"{schema}"}}
    return create_async_engine(url, **options)


@asynccontextmanager
async def _opened(kind: str, engine: AsyncEngine) -> AsyncIterator[Any]:
    match kind:
        case "session":
            async with AsyncSession(engine) as session:
                yield session
        case "twophase":
            async with AsyncSession(engine, twophase=True) as session:
                yield session
        case "own class":
            async with async_sessionmaker(engine, class_=OwnSession)() as session:
                yield session
        case "scoped":
            maker = async_sessionmaker(engine)
            registry = async_scoped_session(maker, scopefunc=asyncio.current_task)
            yield registry
            await registry.remove()
        case "on a connection":
            async with engine.connect() as connection, AsyncSession(connection) as session:
                yield session
        case _:
            async with engine.connect() as connection:
                yield connection


async def _write(tx: Any, n: int | None = 1) -> None:
    await tx.execute(Row.__table__.insert().values(n=n))  # type: ignore[attr-defined]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_together_or_neither(
    kind: str,
    driver: str,
    client: Client,
    host_url: str,
    schema: str,
    announced: Payloads,
    count: Callable[[], tuple[int, int]],
) -> None:
    """In an async session of any kind, rows and jobs are committed together, or neither is."""
    if kind == "twophase" and driver == "asyncpg":
        pytest.skip("SQLAlchemy has no two-phase transactions on asyncpg")

    async def run() -> None:
        engine = _engine(host_url, schema, driver)
        async with _opened(kind, engine) as where:
            await _write(where)
            await client.insert_async(where, JOB)
            await client.insert_many_async(where, [JOB, (JOB, INNER)])
            assert announced() == []
            await where.commit()
        assert count() == (1, 3)
        assert sorted(announced()) == [ANNOUNCED, '{"queue": "inner"}']

        async with _opened(kind, engine) as where:
            await client.insert_async(where, JOB)
            await _write(where)
            await where.rollback()
        assert (count(), announced()) == ((0, 0), [])

        async with _opened(kind, engine) as where:
            await _write(where)
            await client.insert_async(where, JOB)
            savepoint = await where.begin_nested()
            await _write(where)
            await client.insert_async(where, JOB, INNER)
            await savepoint.rollback()
            await where.commit()
        assert (count(), announced()) == ((1, 1), [ANNOUNCED])

        async with _opened(kind, engine) as where:
            await client.insert_async(where, JOB)
            with pytest.raises(IntegrityError):
                await _write(where, None)
            await where.rollback()
        assert (count(), announced()) == ((0, 0), [])

        async with _opened(kind, engine) as where:
            await _write(where)
            await client.insert_async(where, JOB)
            pid = (await where.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            with client.engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
            with pytest.raises(SQLAlchemyError):  # in two phases SQLAlchemy 2.0 has its own
                await where.commit()
            await where.rollback()
        assert (count(), announced()) == ((0, 0), [])
        await engine.dispose()

    asyncio.run(run())


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}], ids=["", "autocommit"])
def test_an_engine_commits(
    driver: str,
    options: dict[str, Any],
    client: Client,
    host_url: str,
    schema: str,
    announced: Payloads,
    count: Callable[[], tuple[int, int]],
) -> None:
    """Given an AsyncEngine of any driver, the job is committed and announced."""

    async def run() -> None:
        engine = _engine(host_url, schema, driver, **options)
        result = await client.insert_async(engine, JOB)
        assert result.job.kind == "greet"
        assert announced() == [ANNOUNCED]
        assert len(await client.insert_many_async(engine, [JOB, JOB])) == 2
        assert announced() == [ANNOUNCED]
        with pytest.raises(ZeroDivisionError):
            await client.insert_many_async(engine, (JOB if n else 1 / n for n in (1, 0)))
        await engine.dispose()

    asyncio.run(run())
    assert count() == (0, 3)


def test_sync_is_refused(client: Client, host: Engine) -> None:
    """insert_async refuses sync objects, and names the right call."""

    async def run() -> None:
        with host.connect() as connection, Session(host) as session:
            registry = scoped_session(sessionmaker(host))
            for sync in (host, connection, session, registry):
                name = type(sync).__name__
                with pytest.raises(
                    NotATransaction, match=rf"got {name}\..* client\.insert\(\.\.\.\)"
                ):
                    await client.insert_async(sync, JOB)  # type: ignore[arg-type]
                with pytest.raises(NotATransaction, match=r"client\.insert_many\(\.\.\.\)"):
                    await client.insert_many_async(sync, [JOB])  # type: ignore[arg-type]
        for other in (None, JOB, "postgresql://", async_sessionmaker()):
            with pytest.raises(NotATransaction, match="expected an AsyncSession"):
                await client.insert_async(other, JOB)  # type: ignore[arg-type]

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_async_is_refused(client: Client, host_url: str) -> None:
    """The sync methods refuse async objects, and name the right call."""

    async def run() -> None:
        engine = create_async_engine(host_url)
        registry = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
        async with engine.connect() as connection, AsyncSession(engine) as session:
            for where in (engine, engine.sync_engine, connection, session, registry):
                calls: list[Callable[[Any], object]] = [
                    lambda where: client.insert(where, JOB),
                    lambda where: client.insert_many(where, [JOB]),
                    lambda where: client.insert_many_fast(where, [JOB]),
                    lambda where: verbs.insert(where, JOB),
                    lambda where: client.cancel(where, 1),
                ]
                for call in calls:
                    with pytest.raises(NotATransaction, match=r"await client\.insert_async\("):
                        call(where)
        await registry.remove()
        await engine.dispose()

    asyncio.run(run())
    gc.collect()  # the driver's coroutine that SQLAlchemy could not await


def test_closed_is_refused(client: Client, host_url: str) -> None:
    """A closed session or connection is refused with that reason."""

    async def run() -> None:
        engine = create_async_engine(host_url)
        session = AsyncSession(engine, close_resets_only=False)
        await session.close()
        connection = await engine.connect()
        await connection.close()
        for where in (session, connection):
            with pytest.raises(TransactionClosed):
                await client.insert_async(where, JOB)
        await engine.dispose()

    asyncio.run(run())

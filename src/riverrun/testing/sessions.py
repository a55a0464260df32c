"""Sessions whose commits are undone, and inserts without unique keys, for tests."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from riverrun.client.client import Client
from riverrun.db.driver import in_transactions, in_transactions_async
from riverrun.execution.plugins import Plugin
from riverrun.verbs.draft import JobDraft

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession


@contextmanager
def rolled_back(engine: Engine, **session_options: Any) -> Iterator[Session]:
    """Yield a Session whose commits are all undone at the end.

    Source: SQLAlchemy 2.1, "Joining a Session into an External Transaction".

    Args:
        engine: The database.
        **session_options: Passed to the Session.
    """
    options = {"join_transaction_mode": "create_savepoint", **session_options}
    with undone(engine) as connection, Session(connection, **options) as session:
        yield session


@contextmanager
def undone(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that is rolled back, even on an autocommit engine."""
    with engine.connect() as connection, in_transactions(connection):
        # A listener of the host, such as one that sets the search path, may have begun one.
        transaction = connection.get_transaction() or connection.begin()
        try:
            yield connection
        finally:
            transaction.rollback()


@asynccontextmanager
async def rolled_back_async(
    engine: "AsyncEngine", **session_options: Any
) -> "AsyncIterator[AsyncSession]":
    """Yield an AsyncSession whose commits are all undone at the end; see `rolled_back`."""
    from sqlalchemy.ext.asyncio import AsyncSession

    async with engine.connect() as connection, in_transactions_async(connection):
        transaction = connection.get_transaction() or await connection.begin()
        options = {"join_transaction_mode": "create_savepoint", **session_options}
        try:
            async with AsyncSession(connection, **options) as session:
                yield session
        finally:
            await transaction.rollback()


@contextmanager
def without_uniqueness(client: Client) -> Iterator[Client]:
    """Insert the jobs of `client` without unique keys in the block, so that none is a duplicate."""
    plugins = client.plugins
    client.plugins = (*plugins, _NoMark())
    try:
        yield client
    finally:
        client.plugins = plugins


class _NoMark(Plugin):
    def insert_begin(self, draft: JobDraft) -> JobDraft:
        return attrs.evolve(draft, mark=None)

"""Async sessions: call a function in the transaction of an AsyncSession and its like."""

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union

from riverrun.errors import NotATransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
    )

AsyncTx: TypeAlias = Union[
    "AsyncSession", "async_scoped_session[Any]", "AsyncConnection", "AsyncEngine"
]
"""What async methods take first. An AsyncEngine begins and commits a transaction of its own."""


T = TypeVar("T")


async def run_in_batches(
    tx: AsyncTx, function: Callable[..., T], *args: object, **options: object
) -> T:
    """Return what `function` returns, as `run_in`; with an AsyncEngine it gets an Engine.

    So it can have a transaction for each batch.

    Raises:
        NotATransaction: If `tx` is none of these.
    """
    from sqlalchemy.ext.asyncio import AsyncEngine

    call = wraps(function)(partial(function, **options))
    if not isinstance(tx, AsyncEngine):
        return await run_in(tx, call, *args)
    async with tx.connect() as connection:
        return await connection.run_sync(lambda sync: call(sync.engine, *args))


async def run_in(tx: AsyncTx, function: Callable[..., T], *args: object) -> T:
    """Return what `function` returns, called with the sync side of `tx` first, then `args`.

    Raises:
        NotATransaction: If `tx` is none of these.
    """
    # Here, as it needs greenlet: applications without async code need not have that.
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
    )

    if isinstance(tx, AsyncEngine):
        async with tx.begin() as connection:
            return await connection.run_sync(function, *args)
    if isinstance(tx, async_scoped_session):
        tx = tx()
    if isinstance(tx, AsyncSession | AsyncConnection):
        return await tx.run_sync(function, *args)
    name, call = type(tx).__name__, function.__name__
    raise NotATransaction(
        name,
        f"With a sync one call client.{call}(...), without await",
        "an AsyncSession, async_scoped_session, AsyncConnection or AsyncEngine",
    )

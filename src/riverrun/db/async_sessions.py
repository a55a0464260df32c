"""Call a sync function in the transaction of an AsyncSession, AsyncConnection or AsyncEngine."""

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
"""The first argument of async methods. On an AsyncEngine they begin and commit a transaction."""


T = TypeVar("T")


async def run_in_batches(
    tx: AsyncTx, function: Callable[..., T], *args: object, **options: object
) -> T:
    """Call `function` as `run_in` does, but pass it an Engine if `tx` is an AsyncEngine.

    So `function` can use a transaction for each batch.

    Raises:
        NotATransaction: If `tx` is none of the types of `AsyncTx`.
    """
    from sqlalchemy.ext.asyncio import AsyncEngine

    call = wraps(function)(partial(function, **options))
    if not isinstance(tx, AsyncEngine):
        return await run_in(tx, call, *args)
    async with tx.connect() as connection:
        return await connection.run_sync(lambda sync: call(sync.engine, *args))


async def run_in(tx: AsyncTx, function: Callable[..., T], *args: object) -> T:
    """Call `function` with the sync counterpart of `tx` and `args`, and return its result.

    Raises:
        NotATransaction: If `tx` is none of the types of `AsyncTx`.
    """
    # Imported here because it needs greenlet, which applications without async code may not have.
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

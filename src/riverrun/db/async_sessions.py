"""Async sessions: call a function in the transaction of an AsyncSession and its like."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union

from riverrun.errors import NotATransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
    )

AsyncWhere: TypeAlias = Union[
    "AsyncSession", "async_scoped_session[Any]", "AsyncConnection", "AsyncEngine"
]
"""What async methods take first. An AsyncEngine begins and commits a transaction of its own."""


T = TypeVar("T")


async def run_in(where: AsyncWhere, function: Callable[..., T], *args: object) -> T:
    """Return what `function` returns, called with the sync side of `where` first, then `args`.

    Raises:
        NotATransaction: If `where` is none of these.
    """
    # Here, as it needs greenlet: applications without async code need not have that.
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
    )

    if isinstance(where, AsyncEngine):
        async with where.begin() as connection:
            return await connection.run_sync(function, *args)
    if isinstance(where, async_scoped_session):
        where = where()
    if isinstance(where, AsyncSession | AsyncConnection):
        return await where.run_sync(function, *args)
    name, call = type(where).__name__, function.__name__
    raise NotATransaction(
        name,
        f"With a sync one call client.{call}(...), without await",
        "an AsyncSession, async_scoped_session, AsyncConnection or AsyncEngine",
    )

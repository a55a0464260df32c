"""An AsyncEngine beside a client's Engine, for workers that take an AsyncSession."""

import inspect
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, NullPool, QueuePool, event

from riverrun.db import forks
from riverrun.errors import ClientNotReady

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


class AsyncEngineBeside:
    """An AsyncEngine that connects as a client's Engine does. It is made on first use.

    It has that engine's `connect_args`, pool sizes, isolation level, JSON functions, execution
    options and `do_connect` listeners, and no other listeners. It belongs to one event loop.

    Args:
        engine: The client's engine.
        pooled: Whether to keep connections in a pool.
    """

    def __init__(self, engine: Engine, *, pooled: bool) -> None:
        self._engine = engine
        self._pooled = pooled
        self._lock = threading.Lock()  # guards _made
        self._made: AsyncEngine | None = None

    def __call__(self) -> "AsyncEngine":
        """Return the engine.

        Raises:
            ClientNotReady: If it is not known how the client's engine connects.
        """
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    async def dispose(self) -> None:
        """Close the connections. Call it in the event loop to which they belong."""
        with self._lock:
            engine, self._made = self._made, None
        if engine is not None:
            await engine.dispose()

    @property
    def is_made(self) -> bool:
        """Whether the engine was made, and must be disposed of."""
        return self._made is not None

    def _make(self) -> "AsyncEngine":
        from sqlalchemy.ext.asyncio import create_async_engine

        engine, dialect = self._engine, self._engine.dialect
        options: dict[str, Any] = _sizes(engine) if self._pooled else {"poolclass": NullPool}
        level = getattr(dialect, "_on_connect_isolation_level", None)
        if level is not None:
            options["isolation_level"] = level
        made = create_async_engine(
            engine.url,
            connect_args=_connect_args(engine),
            execution_options=dict(engine.get_execution_options()),
            hide_parameters=engine.hide_parameters,
            json_serializer=getattr(dialect, "_json_serializer", None),
            json_deserializer=getattr(dialect, "_json_deserializer", None),
            **options,
        )
        for listener in dialect.dispatch.do_connect:
            if listener.__module__ != forks.__name__:  # of sync connections
                event.listen(made.sync_engine, "do_connect", listener)
        event.listen(made.sync_engine, "connect", _connected)
        return made


def _connect_args(engine: Engine) -> dict[str, Any]:
    # create_engine() keeps these only in the closure of the function that connects.
    creator: Any = engine.pool._creator
    outer = inspect.getclosurevars(creator).nonlocals if inspect.isfunction(creator) else {}
    if not {"cparams", "dialect"} <= outer.keys():
        problem = "an async def worker takes an AsyncSession, and the engine's creator= is sync"
        raise ClientNotReady(
            f"{problem}; pass the Client async_sessionmaker=async_sessionmaker(async_engine)"
        )
    of_url = engine.dialect.create_connect_args(engine.url)[1]
    own = outer["cparams"]
    return {name: own[name] for name in own if name not in of_url or of_url[name] != own[name]}


def _connected(dbapi_connection: Any, _record: object) -> None:
    forks.close_in_child(dbapi_connection.driver_connection)


def _sizes(engine: Engine) -> dict[str, Any]:
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return {"poolclass": NullPool}
    return {
        "pool_size": pool.size(),
        "max_overflow": pool._max_overflow,
        "pool_timeout": pool._timeout,
        "pool_recycle": pool._recycle,
        "pool_pre_ping": pool._pre_ping,
    }

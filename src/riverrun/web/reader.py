"""Read from the database for one request: verbs on one connection, with a limit of time."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine

from riverrun.db.reading import reading
from riverrun.web.cache import TTL_S, Cache

R = TypeVar("R")

LIMIT_S = 2.0
"""Seconds that a statement of a page may take."""


class Reader(AbstractContextManager["Reader"]):
    """Calls verbs that read, in one transaction, which begins with the first.

    Args:
        engine: The engine.
        schema: The schema of River's tables; None for the search path's.
        cache: What all requests share.
    """

    def __init__(self, engine: Engine, schema: str | None, cache: Cache) -> None:
        self._engine = engine
        self._schema = schema
        self._cache = cache
        self._stack = ExitStack()
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def close(self) -> None:
        """Give the connection back before an action takes one: the pool may have only one."""
        self._connection = None
        self._stack.close()

    def __call__(self, verb: Callable[..., R], *args: Any, **options: Any) -> R:
        """Call a verb with the request's connection and the schema."""
        if self._connection is None:
            self._connection = self._stack.enter_context(reading(self._engine, LIMIT_S))
        return verb(self._connection, *args, schema=self._schema, **options)

    def shared(
        self,
        verb: Callable[..., R],
        *args: Any,
        ttl_s: float = TTL_S,
        key: Hashable = None,
        **options: Any,
    ) -> R:
        """Call a verb, or return what it has returned to any request a short time ago.

        Args:
            verb: The verb.
            *args: Its arguments after the transaction and before the schema.
            ttl_s: Seconds for which a result is shared.
            key: What the result depends on, if the arguments cannot be a key themselves.
            **options: Its other options.
        """
        place = (verb.__name__, key or args, tuple(sorted(options.items())))
        return self._cache.get(place, lambda: self(verb, *args, **options), ttl_s=ttl_s)

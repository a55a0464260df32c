"""The four things that a verb may be given, each with its own way to end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

KINDS = ("session", "scoped_session", "connection", "engine")
JOINED = KINDS[:3]


@contextmanager
def opened(kind: str, engine: Engine) -> Iterator[Any]:
    """Yield a Session, scoped_session, Connection or Engine; what was not committed is undone."""
    match kind:
        case "session":
            with Session(engine) as session:
                yield session
        case "scoped_session":
            registry = scoped_session(sessionmaker(engine))
            try:
                yield registry
            finally:
                registry.remove()
        case "connection":
            with engine.connect() as connection:
                yield connection
        case _:
            yield engine


def commit(where: Any) -> None:
    """Commit `where`, unless it is an Engine, which has."""
    end: Callable[[], None] | None = getattr(where, "commit", None)
    if end is not None:
        end()

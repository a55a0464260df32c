"""Joins an application's own sessions to a test's transaction for the duration of a test.

The application goes on using its `sessionmaker` or `scoped_session`. Each Session that it makes is
a savepoint in the test's transaction: it sees what the test wrote, and its commits are undone with
the rest.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.util import ScopedRegistry, ThreadLocalRegistry

from riverrun.db.engines import same_database
from riverrun.testing.sessions import undone

Binds: TypeAlias = Callable[[Any], Any]
"""A function that returns the Connection to use in place of an Engine or Connection."""


class UndoneConnections:
    """One connection per database of an application, in a transaction that is rolled back.

    Args:
        engine: The database of the test's own session.
        stack: Rolls the transactions back when it is closed.
    """

    def __init__(self, engine: Engine, stack: ExitStack) -> None:
        self._stack = stack
        self._connections: list[Connection] = []
        self.first = self._open(engine)

    def __call__(self, bind: Engine | Connection) -> Connection:
        """Return the connection to use in place of `bind`; open one if there is none yet."""
        if isinstance(bind, Connection):
            return bind
        for connection in self._connections:
            if same_database(bind, connection.engine):
                return connection
        return self._open(bind)

    def _open(self, engine: Engine) -> Connection:
        connection = self._stack.enter_context(undone(engine))
        self._connections.append(connection)
        return connection


def binds_of(connection: Connection) -> Binds:
    """Return Binds that use `connection` in place of every engine on the same database."""

    def binds(bind: Engine | Connection) -> Engine | Connection:
        if isinstance(bind, Engine) and same_database(bind, connection.engine):
            return connection
        return bind

    return binds


@contextmanager
def factory_within(factory: sessionmaker[Any], binds: Binds) -> Iterator[None]:
    """Make each Session of `factory` a savepoint on the connection that `binds` returns."""
    own = factory.class_
    factory.class_ = savepoints(own, binds)
    try:
        yield
    finally:
        factory.class_ = own


@contextmanager
def registry_within(registry: scoped_session[Any], binds: Binds | None) -> Iterator[None]:
    """Give `registry` new sessions in the block; close them and restore its own at the end.

    So code that removes the registry's session, such as the end of an app context, does not end the
    test's session.

    Args:
        registry: The application's scoped_session.
        binds: As for `factory_within`; None for independent sessions, as in production.
    """
    before, sessions = registry.registry, list[Session]()
    factory: Any = registry.session_factory

    def make() -> Session:
        if isinstance(factory, sessionmaker):
            session: Session = factory()
        else:
            # The factory may return the test's own session, which this scope must not close.
            bind = factory().get_bind()
            session = Session(bind) if binds is None else savepoints(Session, binds)(bind)
        sessions.append(session)
        return session

    with ExitStack() as stack:
        if binds is not None and isinstance(factory, sessionmaker):
            stack.enter_context(factory_within(factory, binds))
        registry.registry = (
            ThreadLocalRegistry(make)
            if isinstance(before, ThreadLocalRegistry)
            else ScopedRegistry(make, before.scopefunc)
        )
        try:
            yield
        finally:
            registry.registry = before
            for session in sessions:
                session.close()


def savepoints(own: type[Session], binds: Binds) -> type[Session]:
    """Return a subclass of a Session class whose sessions are savepoints.

    Args:
        own: The Session class.
        binds: Returns the connection on which a session is a savepoint, as for `factory_within`.
    """

    class Within(own):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            joined = {"join_transaction_mode": "create_savepoint", "twophase": False}
            super().__init__(*args, **{**options, **joined})

        def get_bind(self, *args: Any, **options: Any) -> Any:
            return binds(super().get_bind(*args, **options))

        def connection(self, bind_arguments: Any = None, **options: Any) -> Connection:
            if bind_arguments and bind_arguments.get("bind") is not None:
                bind_arguments = {**bind_arguments, "bind": binds(bind_arguments["bind"])}
            connection: Connection = super().connection(bind_arguments, **options)
            return connection

    Within.__name__ = own.__name__
    return Within

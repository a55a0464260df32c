"""The session that a worker takes as a parameter: it commits once, together with the completion.

The worker's own calls to the session stay within that one transaction. `commit()` flushes, and
protects what was written from a later `rollback()`. `rollback()` and `close()` undo what came after
that. So none of them can separate the worker's writes from the completion of its job.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import attrs
from sqlalchemy import Connection, Engine, Pool, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from riverrun.db.commit_hooks import allow_commit, refuse_commit
from riverrun.db.engines import isolation_of, same_database
from riverrun.errors import ClientNotReady
from riverrun.models import Base

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_sessionmaker,
    )

_COMMITS_LATER = (
    "the transaction of a worker's session commits when the worker returns, with the completion of "
    "its job; do not commit its connection. session.commit() keeps what was written until then"
)

_LOST = (
    "the connection of the worker's session was given up after session.commit(), such as by "
    "session.invalidate(); what was written until then is lost, so the job is not completed"
)

_RIVERRUN = frozenset(Base.registry.mappers)


class HeldSession(Protocol):
    """The methods that a worker's session has beside a Session's own."""

    def complete_and_commit(self, complete: Callable[[Session], object]) -> None:
        """Flush, call `complete`, which writes the job's outcome, and commit.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: If an earlier error left the transaction unusable.
        """

    def held_keep(self) -> None:
        """Protect what was done until now from any rollback by the worker."""

    def release(self) -> None:
        """Close the session for good. What is not committed is rolled back."""


@attrs.frozen(kw_only=True)
class SessionMakers:
    """Makes the sessions of a client's workers.

    Attributes:
        sync: The application's sessionmaker; None for SQLAlchemy's defaults.
        async_: The application's async_sessionmaker; None for SQLAlchemy's defaults.
        async_engine: Returns the engine of AsyncSessions if `async_` has none.
    """

    sync: "sessionmaker[Any] | None" = None
    async_: "async_sessionmaker[Any] | None" = None
    async_engine: "Callable[[], AsyncEngine] | None" = None

    def async_pool(self, engine: Engine) -> Pool:
        """Return the pool of AsyncSessions, or `engine`'s, whose size riverrun's own has, too.

        Args:
            engine: The client's engine.
        """
        bind = None if self.async_ is None else self.async_.kw.get("bind")
        return engine.pool if bind is None else cast("Pool", bind.sync_engine.pool)

    def make(self, wanted: type[Session], connection: Connection, mode: str) -> Session:
        """Return a session of the class `wanted`, or a subclass, in `connection`'s transaction.

        Args:
            wanted: Session, or a subclass.
            connection: The connection that it uses for the client's database.
            mode: SQLAlchemy's `join_transaction_mode`.
        """
        own, options = _of(self.sync, wanted)
        bind = options.get("bind")
        # In a test the transaction is the test's, and is open already.
        if isinstance(bind, Engine) and not connection.in_transaction():
            level = isolation_of(bind)
            if level is not None and level != isolation_of(connection.engine):
                connection.execution_options(isolation_level=level)
        session: Session = _held(own)(  # type: ignore[arg-type]  # a class is hashable
            **_options(options, connection, mode)
        )
        return session

    def make_async(
        self, wanted: "type[AsyncSession]", connection: "AsyncConnection", mode: str
    ) -> "AsyncSession":
        """Return an AsyncSession, as `make` returns a Session."""
        own, options = wanted, {}
        if self.async_ is not None:
            options = dict(self.async_.kw)
            if issubclass(self.async_.class_, wanted):
                own = self.async_.class_
        maker = options.pop("sync_session_class", own.sync_session_class)
        if isinstance(maker, sessionmaker):
            maker, inner = _of(maker, Session)
            options = {**inner, **options}
        bind = connection.sync_connection
        assert bind is not None  # noqa: S101  it is open
        options = _options(options, bind, mode)
        return own(**{**options, "bind": connection, "sync_session_class": _held(maker)})


def _of(
    maker: "sessionmaker[Any] | None", wanted: type[Session]
) -> tuple[type[Session], dict[str, Any]]:
    if maker is None:
        return wanted, {}
    own = maker.class_
    return (own if issubclass(own, wanted) else wanted), dict(maker.kw)


def _options(options: Mapping[str, Any], connection: Connection, mode: str) -> dict[str, Any]:
    joined = {
        **options,
        "bind": connection,
        "twophase": False,
        "join_transaction_mode": mode,
        "autobegin": True,  # the transaction is there: `session.begin()` need not come first
    }
    if binds := options.get("binds"):
        # Binds to another database stay as they are: the session commits on each, as the
        # application's own sessions do.
        joined["binds"] = {key: _on(connection, bind) for key, bind in binds.items()}
    return joined


def _on(connection: Connection, bind: Any) -> Any:
    engine = getattr(bind, "sync_engine", bind)
    if isinstance(engine, Engine) and same_database(engine, connection.engine):
        return connection
    return bind


class _Block:
    """What a worker's `session.begin()` returns: it ends by the session's own commit or rollback.

    It replaces a SessionTransaction, which would really commit.
    """

    nested = False
    parent = None

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def is_active(self) -> bool:
        """As a SessionTransaction's."""
        return self.session.is_active

    def commit(self) -> None:
        """Call the session's `commit`."""
        self.session.commit()

    def rollback(self) -> None:
        """Call the session's `rollback`."""
        self.session.rollback()

    close = rollback

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            try:
                self.commit()
            except BaseException:
                self.rollback()
                raise
        else:
            self.rollback()


def _refuse_root(session: Any) -> None:
    # A savepoint may commit. A commit of the root that the session did not start itself would
    # really commit.
    if not session._held_ending and session.get_nested_transaction() is None:
        raise ClientNotReady(_COMMITS_LATER)


@lru_cache(maxsize=256)
def _held(own: Any) -> Any:
    """Return a subclass of a Session's class whose commits are held until the job is completed."""

    class Held(own):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._held_bind = options["bind"]
            self._held_ending = False
            # The transaction in which the worker has committed, which must not be rolled back.
            self._held_kept: SessionTransaction | None = None
            self._held_proxied = refuse_commit(self._held_bind, _COMMITS_LATER)
            super().__init__(*args, **options)

        def begin(self, nested: bool = False) -> SessionTransaction:
            if nested:
                return cast("SessionTransaction", super().begin(nested=True))
            return cast("SessionTransaction", _Block(self))

        def commit(self) -> None:
            if self._held_ending or not self.is_active:
                super().commit()  # raises if a flush has failed and was not rolled back
                return
            while (savepoint := self.get_nested_transaction()) is not None:
                savepoint.commit()
            self.flush()
            if self.expire_on_commit:
                self.expire_all()
            self.held_keep()

        def rollback(self) -> None:
            if self._held_ending or self._held_kept is None:
                super().rollback()
                return
            while (savepoint := self.get_nested_transaction()) is not None:
                savepoint.rollback()
            self.held_keep()

        def close(self) -> None:
            if self._held_ending:
                super().close()
                return
            if self.in_transaction():
                self.rollback()
            self.expunge_all()

        def reset(self) -> None:
            self.close()

        def get_bind(self, *args: Any, **options: Any) -> Any:
            mapper = options.get("mapper", args[0] if args else None)
            if mapper in _RIVERRUN:
                return self._held_bind
            try:
                return _on(self._held_bind, super().get_bind(*args, **options))
            except UnboundExecutionError:
                return self._held_bind

        def held_keep(self) -> None:
            """Protect what was done until now from any rollback by the worker."""
            super().begin(nested=True)
            if self._held_kept is None:
                self._held_kept = self.get_transaction()

        def complete_and_commit(self, complete: Callable[[Session], object]) -> None:
            if self.is_active:
                while (savepoint := self.get_nested_transaction()) is not None:
                    savepoint.commit()
                self.flush()
            if self._held_kept not in (None, self.get_transaction()):
                raise ClientNotReady(_LOST)
            self._held_ending = True
            # This is the last statement, because it fails if the worker has swallowed an error.
            complete(self)
            allow_commit(self._held_proxied)
            super().commit()

        def release(self) -> None:
            self._held_ending = True
            allow_commit(self._held_proxied)
            super().close()

    event.listen(Held, "before_commit", _refuse_root)
    if own.get_bind is Session.get_bind:
        del Held.get_bind  # the session's bind is the connection, and its own method is quicker
    Held.__name__, Held.__qualname__, Held.__doc__ = own.__name__, own.__qualname__, own.__doc__
    return Held

"""Every kind of session that a host may have: rows and jobs are there together, or neither."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import transaction
import zope.sqlalchemy
from sqlalchemy import Connection, Engine, event, insert, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.sql.dml import Delete, Update

from announcements import Payloads
from hosts.tables import Base, Row
from riverrun import Client, InsertOpts, RawArgs
from riverrun.errors import NotATransaction, WrongDatabase
from riverrun.models import Base as RiverBase
from riverrun.models import Job

JOB = RawArgs(kind="greet", encoded={})
ANNOUNCED = '{"queue": "default"}'
INNER = InsertOpts(queue="inner")


@attrs.define(slots=False)
class Unit:
    """A host's unit of work.

    Attributes:
        where: What it passes to an insert.
        commit: How it commits.
        rollback: How it rolls back.
    """

    where: Any
    commit: Callable[[], object]
    rollback: Callable[[], object]

    def write(self, n: int | None = 1) -> None:
        """Write a row of the host's."""
        if isinstance(self.where, Connection):
            self.where.execute(insert(Row).values(n=n))
        else:
            self.where.add(Row(n=n))
            self.where.flush()


def _unit(session: Any) -> Unit:
    return Unit(session, session.commit, session.rollback)


class RoutingSession(Session):
    """Vertical partitioning as SQLAlchemy's documentation has it, and writes apart from reads."""

    def get_bind(self, mapper: Any = None, clause: Any = None) -> Engine:  # type: ignore[override]
        """Return the engine for a mapper, or for a statement."""
        engines = self.info
        if mapper and issubclass(mapper.class_, (Job, Row)):
            return engines["host"]
        if self._flushing or isinstance(clause, Update | Delete):
            return engines["host"]
        return engines["other"]


class StrictSession(Session):
    """A Session that overrides execute() with fewer parameters, as SQLModel's does."""

    def execute(self, statement: Any, params: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Execute, and take nothing by position but these two."""
        return super().execute(statement, params, **options)


@contextmanager
def _sessions(kind: str, host: Engine, other: Engine) -> Iterator[Unit]:
    """Yield a unit of work in a session of `kind`; what was not committed is rolled back."""
    routes: dict[str, dict[str, Any]] = {
        "session": {"bind": host},
        "twophase": {"bind": host, "twophase": True},
        "future": {"bind": host, "future": True},
        "no autoflush": {"bind": host, "autoflush": False, "expire_on_commit": False},
        "binds by class": {"bind": other, "binds": {Row: host, Job: host}},
        "binds by base": {"bind": other, "binds": {Base: host, Job.__mapper__: host}},
        "binds by table": {
            "bind": other,
            "binds": {Row.__table__: host, Job.__table__: host},
        },
        "binds in two phases": {"twophase": True, "binds": {Row: host, Job: host}},
        "own class": {"bind": host, "class_": StrictSession},
        "routing": {"class_": RoutingSession, "info": {"host": host, "other": other}},
        "sharded": {
            "class_": ShardedSession,
            "shards": {"a": host, "b": other},
            "shard_chooser": lambda mapper, instance, clause=None: "a",
            "identity_chooser": lambda mapper, key, **_: ["a", "b"],
            "execute_chooser": lambda context: ["a", "b"],
        },
    }
    with sessionmaker(**routes[kind])() as session:
        yield _unit(session)


@contextmanager
def _followed(kind: str, host: Engine, other: Engine) -> Iterator[Unit]:
    """The same, with a listener on each statement of the session's, as tracing has one."""
    with _sessions(kind.removeprefix("followed "), host, other) as unit:
        event.listen(unit.where, "do_orm_execute", lambda state: None)
        yield unit


@contextmanager
def _scoped(kind: str, host: Engine, other: Engine) -> Iterator[Unit]:
    keys = {"scoped by thread": None, "scoped by anything": lambda: ("request", 7)}
    registry = scoped_session(sessionmaker(host), scopefunc=keys[kind])
    yield _unit(registry)
    registry.remove()


@contextmanager
def _autobegin(kind: str, host: Engine, other: Engine) -> Iterator[Unit]:
    with Session(host, autobegin=False) as session:
        session.begin()
        yield _unit(session)


@contextmanager
def _on_a_connection(kind: str, host: Engine, other: Engine) -> Iterator[Unit]:
    with host.connect() as connection:
        if kind == "connection":
            yield _unit(connection)
            return
        if kind == "its first transaction":
            with Session(connection) as session:
                yield _unit(session)
            return
        root = connection.begin()
        with Session(connection, join_transaction_mode=kind) as session:  # type: ignore[arg-type]

            def commit() -> None:
                session.commit()
                if root.is_active:
                    root.commit()

            def rollback() -> None:
                session.rollback()
                if root.is_active:
                    root.rollback()

            yield Unit(session, commit, rollback)


@contextmanager
def _zope(kind: str, host: Engine, other: Engine) -> Iterator[Unit]:
    manager = transaction.TransactionManager(explicit=True)
    with Session(host, twophase=kind == "zope in two phases") as session:
        zope.sqlalchemy.register(session, transaction_manager=manager)
        manager.begin()
        yield Unit(session, manager.commit, manager.abort)


OPENERS: dict[str, Callable[[str, Engine, Engine], Any]] = {
    **dict.fromkeys(
        (
            "session",
            "twophase",
            "future",
            "no autoflush",
            "binds by class",
            "binds by base",
            "binds by table",
            "binds in two phases",
            "own class",
            "routing",
            "sharded",
        ),
        _sessions,
    ),
    **dict.fromkeys(("followed session", "followed routing", "followed sharded"), _followed),
    **dict.fromkeys(("scoped by thread", "scoped by anything"), _scoped),
    "no autobegin": _autobegin,
    **dict.fromkeys(
        (
            "connection",
            "its first transaction",
            "conditional_savepoint",
            "rollback_only",
            "control_fully",
            "create_savepoint",
        ),
        _on_a_connection,
    ),
    **dict.fromkeys(("zope", "zope in two phases"), _zope),
}


def _lose(host: Engine, tx: Any) -> None:
    connection = tx
    if not isinstance(tx, Connection):
        connection = tx.connection(bind_arguments={"mapper": Row.__mapper__})
    pid = connection.connection.driver_connection.info.backend_pid
    with host.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})


@pytest.mark.parametrize("kind", OPENERS)
def test_together_or_neither(
    kind: str,
    client: Client,
    host: Engine,
    other: Engine,
    announced: Payloads,
    count: Callable[[], tuple[int, int]],
) -> None:
    """In a session of any kind, rows and jobs are committed together, and only those announced."""

    def opened() -> Any:
        return OPENERS[kind](kind, host, other)

    with opened() as unit:
        unit.write()
        client.insert(unit.where, JOB)
        assert announced() == []
        unit.commit()
    assert (count(), announced()) == ((1, 1), [ANNOUNCED]), "a commit"

    with opened() as unit:
        client.insert_many_fast(unit.where, [JOB, JOB])
        unit.write()
        unit.commit()
    assert (count(), announced()) == ((1, 2), [ANNOUNCED]), "a commit after COPY"

    with opened() as unit:
        client.insert(unit.where, JOB)
        unit.write()
        unit.rollback()
    assert (count(), announced()) == ((0, 0), []), "a rollback"

    with opened() as unit:
        unit.write()
        client.insert(unit.where, JOB)
        if kind.endswith("sharded"):
            # SQLAlchemy 2.1 flushes past the savepoints of a ShardedSession; a Session's own
            # connection() is in them.
            unit.write = lambda: None  # type: ignore[method-assign]
        savepoint = unit.where.begin_nested()
        unit.write()
        client.insert(unit.where, JOB, INNER)
        savepoint.rollback()
        unit.commit()
    assert (count(), announced()) == ((1, 1), [ANNOUNCED]), "a savepoint rolled back"

    with opened() as unit:
        client.insert(unit.where, JOB)
        with pytest.raises(IntegrityError):
            unit.write(None)
        unit.rollback()
    assert (count(), announced()) == ((0, 0), []), "a flush that failed"

    with opened() as unit:
        unit.write()
        client.insert(unit.where, JOB)
        _lose(host, unit.where)
        with pytest.raises(SQLAlchemyError):  # in two phases SQLAlchemy 2.0 has one of its own
            unit.commit()
        unit.rollback()
    assert (count(), announced()) == ((0, 0), []), "a lost connection"


@pytest.mark.parametrize(
    "chooser",
    [lambda mapper, instance, clause=None: instance.continent, lambda *_, **__: None],
    ids=["by instance", "none"],
)
def test_a_shard_that_is_not_chosen(client: Client, host: Engine, chooser: Any) -> None:
    """Where a ShardedSession chooses no shard for jobs, the error says how to name one."""
    with ShardedSession(
        shards={"a": host},
        shard_chooser=chooser,
        identity_chooser=lambda *_, **__: ["a"],
        execute_chooser=lambda _: ["a"],
    ) as session:
        with pytest.raises(
            NotATransaction, match=r'connection\(bind_arguments={"shard_id": ...}\)'
        ):
            client.insert(session, JOB)
        client.insert(session.connection(bind_arguments={"shard_id": "a"}), JOB)
        session.commit()
    assert len(client.list_jobs(host).jobs) == 1


@pytest.mark.parametrize("kind", ["binds by class", "routing", "sharded"])
def test_the_other_database(kind: str, client: Client, host: Engine, other: Engine) -> None:
    """A session that leads jobs to another database than the client's is refused."""
    with OPENERS[kind](kind, other, host) as unit, pytest.raises(WrongDatabase):
        client.insert(unit.where, JOB)
    assert client.list_jobs(host).jobs == []


@pytest.mark.parametrize("options", [{}, {"binds": {Base: None}}], ids=["no bind", "binds"])
def test_a_session_without_an_engine_for_jobs(host: Engine, options: dict[str, Any]) -> None:
    """A session that knows no engine for jobs is refused with what to do, and that works."""
    client = Client(host)
    binds: dict[Any, Any] = dict.fromkeys(options.get("binds", {}), host)
    with Session(binds=binds) as session:
        for insert_job in (client.insert, client.add, lambda where, job: client.get(where, 1)):
            with pytest.raises(NotATransaction, match=r"without an engine for jobs.*binds="):
                insert_job(session, JOB)
    with Session(binds={**binds, RiverBase: host}) as session, session.begin():
        client.insert(session, JOB)
        client.add(session, JOB)
    assert len(client.list_jobs(host).jobs) == 2

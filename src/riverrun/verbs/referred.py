"""Check that the objects to which a job's args refer are in the job's database."""

from collections.abc import Iterable
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Engine, Pool, Table, delete
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Mapper, Session, object_mapper, object_session

from riverrun.db.engines import address, identity
from riverrun.db.transactions import Transaction
from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.orm.marks import Schemas, table_of
from riverrun.orm.object_keys import base_of, state_of, with_article

_same_database: WeakKeyDictionary[Pool, WeakSet[Pool]] = WeakKeyDictionary()


class _Job(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def refers_to(self) -> tuple[object, ...]: ...


def check_objects(transaction: Transaction, jobs: Iterable[_Job]) -> None:
    """Refuse jobs that refer to objects in another database.

    Raises:
        InvalidArgs: If a job does.
    """
    checked: set[tuple[int, Mapper[Any]]] = set()
    for job in jobs:
        for obj in job.refers_to:
            session = object_session(obj)
            if session is None:
                continue  # Detached: its database is not known.
            place = (id(session), object_mapper(obj))
            if place not in checked:
                checked.add(place)
                _check(transaction, job.kind, obj, session)


def check_schema(option: str, obj: object, schemas: Schemas) -> None:
    """Refuse an object whose session finds it in another schema than workers do.

    Args:
        option: The option of the insert that the object was given for.
        obj: A mapped object. If it is in no session, it is not known where it was found.
        schemas: The `schema_translate_map` of the client's engine.

    Raises:
        InvalidOption: If workers would look for the object elsewhere.
    """
    session = object_session(obj)
    bind = None if session is None else _bind(obj, session)
    if session is None or bind is None:
        return
    begun: Any = session.get_transaction()
    # The connection may have a map of its own. It is not asked for here, as that might connect.
    found = begun._connections.get(bind) if begun is not None else None
    options = (bind if found is None else found[0]).get_execution_options()
    base = base_of(type(obj))
    there = table_of(base, options.get("schema_translate_map") or {})
    here = table_of(base, schemas)
    if there != here:
        expected = (
            f"an object in {here}, where this client's workers look for it; the "
            f"schema_translate_map of its session leads to {there}"
        )
        raise InvalidOption(option, obj, expected)


def _check(transaction: Transaction, kind: str, obj: object, session: Session) -> None:
    bind = _bind(obj, session)
    if bind is None:
        return
    given, expected = bind.engine, transaction.engine
    known = _same_database.setdefault(expected.pool, WeakSet())
    if given.pool is expected.pool or given.pool in known:
        return
    if given.dialect.name == expected.dialect.name:
        there = _identity(session, bind)
        if there == identity(transaction.connection):
            known.add(given.pool)
            return
    name = with_article(type(obj).__name__)
    problem = f"they refer to {name} of {address(given)}, and the job goes to {address(expected)}"
    raise InvalidArgs(kind, f"{problem}; an object and its job are in one database")


def _bind(obj: object, session: Session) -> Engine | Connection | None:
    mapper: Any = object_mapper(obj)
    # Ask for a write, because a session with replicas sends reads to those.
    options: dict[str, Any] = {"mapper": mapper}
    if isinstance(mapper.local_table, Table):
        options["clause"] = delete(mapper.local_table)
    if isinstance(session, ShardedSession):
        state = state_of(obj)
        shard = state.identity_token if state is not None else None
        options |= {"shard_id": shard} if shard is not None else {"instance": obj}
    try:
        return session.get_bind(**options)
    except UnboundExecutionError:
        return None


def _identity(session: Session, bind: Engine | Connection) -> tuple[str, str]:
    if isinstance(bind, Connection):
        return identity(bind)
    if session.in_transaction():
        return identity(session.connection(bind_arguments={"bind": bind}))
    with bind.connect() as connection:
        return identity(connection)

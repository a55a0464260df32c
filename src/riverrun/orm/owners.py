"""Owners: mapped objects whose deletion cancels the jobs that they own, in the flush that deletes.

The metadata of a job has the mark of its owner's row. A mapper event reports each deleted object of
a class that has owned jobs of a client; once the flush has written everything, including the jobs
that it inserts, one statement cancels the waiting jobs of all its deleted objects.
"""

import warnings
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, cast
from weakref import WeakSet

from sqlalchemy import Connection, event
from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState, Session

from riverrun.db.transactions import own_listener
from riverrun.errors import OwnerBypassed
from riverrun.orm.living import Living
from riverrun.orm.marks import Schemas, mark_of, table_of
from riverrun.orm.object_keys import base_of, identity_of, state_of

_DELETED = "_riverrun_deleted"
"""The attribute of a session with the objects that a flush deletes."""


class _Deleted(NamedTuple):
    base: Mapper[Any]
    table: str
    mark: str


class Canceller(Protocol):
    """Cancels jobs of deleted owners: a client's inserter."""

    def cancel_owned(self, session: Session, marks: Sequence[str]) -> bool:
        """Cancel the waiting jobs whose owners have the marks, in the session's transaction.

        Returns:
            Whether it cancelled them; False if the session is on another database.
        """


class Owners:
    """The classes whose objects own jobs of a client. They are known from the client's inserts.

    Args:
        canceller: Cancels their jobs.
        schema: The schema of River's tables.
        schemas: The `schema_translate_map` of the client's engine.
    """

    def __init__(self, canceller: Canceller, *, schema: str | None, schemas: Schemas) -> None:
        self._canceller = canceller
        self._schemas = schemas
        # Clients that have this in common cancel a job once.
        self._place = (schema, frozenset(schemas.items()))
        self._bases: dict[Mapper[Any], None] = {}  # a set that other threads may iterate over

    def watch(self, mapper: Mapper[Any]) -> None:
        """Cancel jobs when an object of a class, or of its sub- and superclasses, is deleted."""
        base = base_of(mapper.class_)
        if base in self._bases:
            return
        self._bases[base] = None
        _watched.add(base)
        _all.add(self)
        if not event.contains(Session, "do_orm_execute", _on_execute):
            event.listen(Session, "do_orm_execute", _on_execute)

    def cancel(
        self,
        session: Session,
        deleted: Sequence[_Deleted],
        done: set[Hashable],
    ) -> None:
        """Cancel the waiting jobs of deleted objects.

        Args:
            session: The session whose flush deleted them.
            deleted: The objects.
            done: The places in which other clients have cancelled them. This adds its own.
        """
        # A session of another tenant may not even find River's tables.
        found = [owner for owner in deleted if owner.table == table_of(owner.base, self._schemas)]
        if self._place in done or not any(owner.base in self._bases for owner in found):
            return
        if self._canceller.cancel_owned(session, [owner.mark for owner in found]):
            done.add(self._place)

    def check_bulk(self, mapper: Mapper[Any] | None, table: object) -> None:
        """Warn once of bulk statements that delete objects of a class, which no flush will see."""
        for base in list(self._bases):
            about = mapper.isa(base) if mapper is not None else table in base.tables
            if about and base not in _warned:
                _warned.add(base)
                warnings.warn(OwnerBypassed(base.class_.__name__), stacklevel=2)


_all: Living[Owners] = Living()

_watched: WeakSet[Mapper[Any]] = WeakSet()

_warned: WeakSet[Mapper[Any]] = WeakSet()


# These listeners are there from the beginning: a flush may insert the first job with an owner, and
# SQLAlchemy refuses new listeners to an event that it is calling listeners of.
@event.listens_for(Mapper, "after_delete")
def _record(_mapper: object, connection: Connection, obj: Any) -> None:
    if not _watched or (base := base_of(type(obj))) not in _watched:
        return
    state = cast("InstanceState[Any]", state_of(obj))
    identity, session = identity_of(state), state.session
    if identity is not None and session is not None:
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        deleted = _Deleted(base, table_of(base, schemas), mark_of(base, identity, schemas))
        session.__dict__.setdefault(_DELETED, []).append(deleted)


@event.listens_for(Session, "before_flush")
def _forget(session: Session, *_: object) -> None:
    """Forget what an earlier, failed flush deleted."""
    session.__dict__.pop(_DELETED, None)


# After the flush, and not within it: so the jobs that the flush inserts are cancelled, too.
@event.listens_for(Session, "after_flush_postexec")
def _cancel(session: Session, _context: object) -> None:
    deleted = session.__dict__.pop(_DELETED, None)
    if deleted:
        done: set[Hashable] = set()
        for owners in _all:
            owners.cancel(session, deleted, done)


@own_listener
def _on_execute(statement: ORMExecuteState) -> None:
    if statement.is_delete:
        table = getattr(statement.statement, "table", None)
        for owners in _all:
            owners.check_bulk(statement.bind_mapper, table)

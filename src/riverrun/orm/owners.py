"""Owners: mapped objects whose deletion cancels the jobs that they own, in the flush that deletes.

The metadata of a job has the mark of its owner's row. A mapper event reports each deleted object of
a class that has owned jobs of a client; once the flush has written everything, including the jobs
that it inserts, one statement cancels the waiting jobs of all its deleted objects.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol, cast
from weakref import WeakSet, ref

from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState, Session

from riverrun.db.transactions import own_listener
from riverrun.errors import OwnerBypassed
from riverrun.orm.marks import base_of, mark_of
from riverrun.orm.object_keys import identity_of, state_of

_DELETED = "_riverrun_deleted"
"""The attribute of a session with the base mapper and mark of each object that a flush deletes."""


class Canceller(Protocol):
    """Cancels jobs of deleted owners: a client's inserter."""

    def cancel_owned(self, session: Session, marks: Sequence[str]) -> bool:
        """Cancel the waiting jobs whose owners have the marks, in the session's transaction.

        Returns:
            Whether it has; False if the session is on another database.
        """


class Owners:
    """The classes whose objects own jobs of a client. They are known from the client's inserts.

    Args:
        canceller: Cancels their jobs.
        schema: The schema of River's tables. Clients that share it cancel a job once.
    """

    def __init__(self, canceller: Canceller, *, schema: str | None) -> None:
        self._canceller = canceller
        self._schema = schema
        self._bases: dict[Mapper[Any], None] = {}  # a set that other threads may iterate over

    def watch(self, mapper: Mapper[Any]) -> None:
        """Cancel jobs when an object of a class, or of its sub- and superclasses, is deleted."""
        base = base_of(mapper.class_)
        if base in self._bases:
            return
        self._bases[base] = None
        _watched.add(base)
        key = id(self)
        _all[key] = ref(self, lambda _: _all.pop(key, None))
        if not event.contains(Session, "do_orm_execute", _on_execute):
            event.listen(Session, "do_orm_execute", _on_execute)

    def cancel(
        self,
        session: Session,
        deleted: Sequence[tuple[Mapper[Any], str]],
        done: set[str | None],
    ) -> None:
        """Cancel the waiting jobs of deleted objects.

        Args:
            session: The session whose flush deleted them.
            deleted: The base mapper and the mark of each object.
            done: The schemas in which other clients have cancelled them. This adds its own.
        """
        if self._schema in done or not any(base in self._bases for base, _ in deleted):
            return
        if self._canceller.cancel_owned(session, [mark for _, mark in deleted]):
            done.add(self._schema)

    def check_bulk(self, mapper: Mapper[Any] | None, table: object) -> None:
        """Warn once of bulk statements that delete objects of a class, which no flush will see."""
        for base in list(self._bases):
            about = mapper.isa(base) if mapper is not None else table in base.tables
            if about and base not in _warned:
                _warned.add(base)
                warnings.warn(OwnerBypassed(base.class_.__name__), stacklevel=2)


# Not a WeakSet: an insert in another thread may add to it while a flush iterates.
_all: "dict[int, ref[Owners]]" = {}

_watched: WeakSet[Mapper[Any]] = WeakSet()

_warned: WeakSet[Mapper[Any]] = WeakSet()


def _living() -> list[Owners]:
    found = (reference() for reference in list(_all.values()))
    return [owners for owners in found if owners is not None]


# These listeners are there from the beginning: a flush may insert the first job with an owner, and
# SQLAlchemy refuses new listeners to an event that it is calling listeners of.
@event.listens_for(Mapper, "after_delete")
def _record(_mapper: object, _connection: object, obj: Any) -> None:
    if not _watched or (base := base_of(type(obj))) not in _watched:
        return
    state = cast("InstanceState[Any]", state_of(obj))
    identity, session = identity_of(state), state.session
    if identity is not None and session is not None:
        session.__dict__.setdefault(_DELETED, []).append((base, mark_of(base, identity)))


@event.listens_for(Session, "before_flush")
def _forget(session: Session, *_: object) -> None:
    """Forget what an earlier flush deleted that has failed."""
    session.__dict__.pop(_DELETED, None)


# After the flush, and not within it: so the jobs that the flush inserts are cancelled, too.
@event.listens_for(Session, "after_flush_postexec")
def _cancel(session: Session, _context: object) -> None:
    deleted = session.__dict__.pop(_DELETED, None)
    if deleted:
        done: set[str | None] = set()
        for owners in _living():
            owners.cancel(session, deleted, done)


@own_listener
def _on_execute(statement: ORMExecuteState) -> None:
    if statement.is_delete:
        table = getattr(statement.statement, "table", None)
        for owners in _living():
            owners.check_bulk(statement.bind_mapper, table)

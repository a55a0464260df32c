"""Rules: a client makes jobs for changes to mapped objects, in the transaction of the change.

Mapper events report what each flush changed, including orphans and foreign keys that are set
through relationships. The jobs are decided when the transaction commits, so that many changes to
one object make one job, for its last state. Until then a change is kept with the transaction or
savepoint that flushed it, and is gone if that is rolled back.

One module, although long: rules, their listeners and the commit work on one record of changes.
"""

import warnings
from collections.abc import Callable, Iterator
from operator import eq
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary, finalize, ref

import attrs
from sqlalchemy import Column, event
from sqlalchemy.orm import (
    ColumnProperty,
    CompositeProperty,
    InstanceState,
    Mapper,
    MapperProperty,
    ORMExecuteState,
    QueryableAttribute,
    RelationshipDirection,
    RelationshipProperty,
    Session,
    SessionTransaction,
)
from sqlalchemy.orm.attributes import get_history
from sqlalchemy.orm.base import NO_VALUE, PASSIVE_NO_INITIALIZE, PassiveFlag

from riverrun.db.transactions import own_listener
from riverrun.errors import InvalidOption, RuleBypassed
from riverrun.jobs.checks import check_flag
from riverrun.jobs.options import InsertOpts
from riverrun.orm.added import AddedJob, expect_flush
from riverrun.orm.living import Living
from riverrun.orm.object_keys import mapper_of, state_of

T = TypeVar("T")

_CHANGES = "_riverrun_changes"
"""The attribute of a session with its `_Changes`."""

# The history of a collection that is not loaded has what a backref has added to it.
_AS_LOADED = PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS


_COMMITTING = "_riverrun_committing"
"""The attribute of a session with the transaction that it is committing."""


class Adder(Protocol):
    """Adds jobs to sessions: a client's inserter."""

    def add(self, session: Session, args: Any, opts: InsertOpts | None) -> AddedJob:
        """Add a job to a session, whose next flush inserts it."""


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Rule(Generic[T]):
    """Makes a job for each object of a class that was changed. It lives as long as its client.

    Attributes:
        on: "insert", "update" or "delete".
        entity: The mapped class; objects of its subclasses count, too.
        attribute: The name of the attribute whose changes count; None for an insert or a delete.
        make: Returns the args of the object's job; None for no job.
        when: Returns whether a new value of the attribute counts; None if all do.
        opts: How the job is inserted.
        strict: Whether a bulk statement that bypasses the rule raises RuleBypassed.
    """

    on: str
    entity: type[T]
    make: Callable[[T], Any]
    attribute: str | None = None
    when: Callable[[Any], object] | None = None
    opts: InsertOpts | None = None
    strict: bool = False
    _remove: Callable[["Rule[Any]"], None]

    def __attrs_post_init__(self) -> None:
        if mapper_of(self.entity) is None:
            raise InvalidOption("entity", self.entity, "a mapped class")
        if not callable(self.make):
            raise InvalidOption("make", self.make, "a function of the object that returns args")
        if self.when is not None and not callable(self.when):
            raise InvalidOption("when", self.when, "a function of the new value")
        if self.opts is not None and not isinstance(self.opts, InsertOpts):
            raise InvalidOption("opts", self.opts, "an InsertOpts")
        check_flag("strict", self.strict)

    def remove(self) -> None:
        """Make no more jobs, not even for changes that are flushed and not yet committed."""
        self._remove(self)

    def __repr__(self) -> str:
        attribute = f".{self.attribute}" if self.attribute else ""
        return f"<Rule on_{self.on}({self.entity.__name__}{attribute})>"


class Rules:
    """The rules of a client.

    Args:
        adder: Inserts their jobs.
    """

    def __init__(self, adder: Adder) -> None:
        self._adder = adder
        self._removals: dict[Rule[Any], finalize[Any, Any]] = {}
        self._warned: set[Rule[Any]] = set()

    def __iter__(self) -> Iterator[Rule[Any]]:
        """Iterate over the rules, in the order in which they were made."""
        return iter(list(self._removals))

    def __len__(self) -> int:
        return len(self._removals)

    def __contains__(self, rule: object) -> bool:
        return rule in self._removals

    def add(self, on: str, target: Any, make: Callable[[Any], Any], **options: Any) -> Rule[Any]:
        """Make a rule, and listen to the changes of its class."""
        attribute = None
        if on == "update":
            if not isinstance(target, QueryableAttribute) or not isinstance(target.parent, Mapper):
                raise InvalidOption("attribute", target, "one of a mapped class: Order.status")
            if not _is_assigned(target):
                expected = "one that the application assigns: no flush shows that it has changed"
                raise InvalidOption("attribute", target, expected)
            target, attribute = target.parent.class_, target.key
        weak = ref(self)

        def remove(rule: Rule[Any]) -> None:
            if (rules := weak()) is not None and (removal := rules._removals.pop(rule, None)):
                removal()

        rule = Rule[Any](
            on=on, entity=target, make=make, attribute=attribute, remove=remove, **options
        )
        _listen()
        _all.add(self)
        # The event listeners of a class may outlive the client, so they hold weak references.
        of_rule = ref(rule)
        listeners = [(f"after_{on}", _collector(weak, of_rule, on))]
        if on == "delete":
            listeners.append(("after_insert", _collector(weak, of_rule, "insert")))
        elif on == "update":
            # Needed beside after_update, when an SQL expression does not show as a change any more.
            # But an object that takes over a deleted one's row has no before_update.
            listeners.append(("before_update", _collector(weak, of_rule, on)))
        removal = finalize(self, _forget, [_add(target, *each) for each in listeners])
        removal.atexit = False
        self._removals[rule] = removal
        return rule

    def check_bulk(self, on: str, mapper: Mapper[Any] | None, table: object, names: Any) -> None:
        """Warn of, or refuse, a bulk statement whose changes no flush will see.

        Args:
            on: What the statement does: "insert", "update" or "delete".
            mapper: The mapper of the class that it changes, if it names one.
            table: The table that it changes, if it names one.
            names: The columns that it sets; None if they are not known.

        Raises:
            RuleBypassed: If it bypasses a rule that is strict.
        """
        for rule in self:
            if rule.on != on or not _is_about(rule, mapper, table, names):
                continue
            if rule.strict:
                raise RuleBypassed(repr(rule), on)
            if rule not in self._warned:
                self._warned.add(rule)
                warnings.warn(RuleBypassed(repr(rule), on), stacklevel=2)

    def decide(self, session: Session, changes: list["_Change"]) -> None:
        """Add the jobs of changes that are about to be committed."""
        born = {id(change.obj) for change in changes if change.on == "insert"}
        for change in changes:
            rule = change.rule
            if change.on != rule.on or rule not in self:
                continue
            if rule.on == "delete":
                args = None if id(change.obj) in born else change.args
            else:
                args = _args_of(change)
            if args is not None:
                self._adder.add(session, args, rule.opts)


@attrs.define(eq=False)
class _Change:
    """A change of one object, as one rule sees it.

    Attributes:
        rules: The rules of the client.
        rule: The rule.
        on: What was done. A rule for deletes also records inserts, to know which objects are new.
        obj: The object.
        old: The attribute's value before the first change of the transaction, if it is known.
        args: The args of a deletion's job.
    """

    rules: Rules
    rule: Rule[Any]
    on: str
    obj: Any
    old: Any = NO_VALUE
    args: Any = None


class _Changes:
    """The changes that a session's transactions have flushed."""

    def __init__(self) -> None:
        self._by_transaction: WeakKeyDictionary[SessionTransaction, list[_Change]] = (
            WeakKeyDictionary()
        )

    @classmethod
    def of(cls, session: Session) -> "_Changes":
        """Return the changes of a session."""
        return cast("_Changes", session.__dict__.setdefault(_CHANGES, cls()))

    def append(self, session: Session, change: _Change) -> None:
        """Keep a change with the transaction or savepoint that is open."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        assert transaction is not None  # noqa: S101  a flush is within one
        self._by_transaction.setdefault(transaction, []).append(change)

    def release(self, savepoint: SessionTransaction) -> None:
        """Move the changes of a savepoint to the transaction or savepoint around it."""
        changes = self._by_transaction.pop(savepoint, None)
        if changes and savepoint.parent is not None:
            self._by_transaction.setdefault(savepoint.parent, []).extend(changes)

    def take(self, session: Session) -> list[_Change]:
        """Return the changes of the committing transaction, once for each rule and object."""
        root = session.get_transaction()
        found = [] if root is None else self._by_transaction.pop(root, [])
        first: dict[tuple[int, int, str], _Change] = {}
        for change in found:
            first.setdefault((id(change.rule), id(change.obj), change.on), change)
        return list(first.values())


def _args_of(change: _Change) -> Any:
    """Return the args of the job for an inserted or updated object; None for no job."""
    rule, state = change.rule, cast("InstanceState[Any]", state_of(change.obj))
    if state.deleted or state.was_deleted or state.transient:
        return None
    if rule.attribute is not None:
        value = getattr(change.obj, rule.attribute)
        if change.old is not NO_VALUE and _is_equal(state, rule.attribute, value, change.old):
            return None
        if rule.when is not None and not rule.when(value):
            return None
    return rule.make(change.obj)


def _is_equal(state: InstanceState[Any], attribute: str, one: object, other: object) -> bool:
    # SQLAlchemy compares in this way, by the column's type, to decide whether to write a value.
    # `==` need not return a bool, such as for arrays.
    compare = getattr(getattr(state.manager[attribute], "impl", None), "is_equal", eq)
    return compare(one, other) is True


def _collector(rules_ref: "ref[Rules]", rule_ref: "ref[Rule[Any]]", on: str) -> Callable[..., None]:
    """Return a listener that records inserted, updated or deleted objects."""

    def collect(_mapper: object, _connection: object, obj: Any) -> None:
        rules, rule = rules_ref(), rule_ref()
        session = cast("InstanceState[Any]", state_of(obj)).session
        if rules is None or rule is None or session is None or rule not in rules:
            return
        change = _Change(rules, rule, on, obj)
        if on == "update":
            history = get_history(obj, cast("str", rule.attribute), _AS_LOADED)
            if not history.added and not history.deleted:
                return
            change.old = history.deleted[0] if history.deleted else NO_VALUE
        elif on == "delete":
            # Made now, because later the object's relationships cannot be loaded.
            change.args = rule.make(obj)
        _Changes.of(session).append(session, change)

    return collect


def _is_assigned(attribute: QueryableAttribute[Any]) -> bool:
    """Return whether an attribute's history shows changes, as that of a version does not."""
    # Not by the mapper's attrs: they configure all mappers, and some may not be defined yet.
    if attribute.key not in attribute.parent.class_manager:
        return False  # a hybrid or another descriptor, of which the mapper knows nothing
    found: Any = getattr(attribute.comparator, "prop", None)
    if getattr(found, "viewonly", False):
        return False
    if not isinstance(found, ColumnProperty):
        return True
    column = found.columns[0]
    return isinstance(column, Column) and column is not attribute.parent.version_id_col


_Collectors: TypeAlias = dict[object, Callable[..., None]]

_collectors: WeakKeyDictionary[Mapper[Any], dict[str, _Collectors]] = WeakKeyDictionary()
"""By mapper and event: the listeners of rules, each under a key of its own."""


def _add(target: type, name: str, collect: Callable[..., None]) -> tuple[_Collectors, object]:
    """Have an event of a class call `collect`; return where it is kept, and its key there.

    SQLAlchemy's own listeners of a class must not change while one of them is called: a rule may be
    removed by its own function, by another thread or by a garbage collection, within any flush. So
    one listener of each event stays, and calls the rules that there are.
    """
    new: _Collectors = {}
    mapper = cast("Mapper[Any]", mapper_of(target))
    collectors = _collectors.setdefault(mapper, {}).setdefault(name, new)
    if collectors is new:

        def collect_all(mapper: object, connection: object, obj: object) -> None:
            for each in list(new.values()):
                each(mapper, connection, obj)

        event.listen(target, name, collect_all, propagate=True)
    key = object()
    collectors[key] = collect
    return collectors, key


def _forget(kept: list[tuple[_Collectors, object]]) -> None:
    for collectors, key in kept:
        collectors.pop(key, None)


# The listeners on the class Session, which all rules share

_all: Living[Rules] = Living()


def _listen() -> None:
    """Listen to all sessions, unless an earlier rule has done so."""
    for name, listener in (
        ("before_commit", _before_commit),
        ("after_commit", _after_commit),
        ("after_flush_postexec", _after_flush),
        ("do_orm_execute", _on_execute),
    ):
        if not event.contains(Session, name, listener):
            event.listen(Session, name, listener)


def _before_commit(session: Session) -> None:
    if session.get_nested_transaction() is not None:
        return
    session.__dict__[_COMMITTING] = session.get_transaction()
    if _CHANGES in session.__dict__:
        if session.new or session.deleted or session.dirty:
            # The commit's own flush comes next and decides, by the state that is committed. An
            # orphan that was never flushed causes no flush, but this does.
            expect_flush(session)
        else:
            _decide(session)


def _after_flush(session: Session, _context: object) -> None:
    # Compared with the transaction: if an earlier commit failed, this is another transaction.
    attributes = session.__dict__
    if _CHANGES in attributes and attributes.get(_COMMITTING) is session.get_transaction():
        _decide(session)


def _decide(session: Session) -> None:
    """Add the jobs for the committed changes. The commit flushes until nothing is left."""
    changes: _Changes | None = session.__dict__.get(_CHANGES)
    if changes is None:
        return
    by_rules: dict[Rules, list[_Change]] = {}
    for change in changes.take(session):
        by_rules.setdefault(change.rules, []).append(change)
    if by_rules:
        with session.no_autoflush:
            for rules, found in by_rules.items():
                rules.decide(session, found)


def _after_commit(session: Session) -> None:
    changes: _Changes | None = session.__dict__.get(_CHANGES)
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        session.__dict__.pop(_COMMITTING, None)
        session.__dict__.pop(_CHANGES, None)
    elif changes is not None:
        changes.release(savepoint)


@own_listener
def _on_execute(statement: ORMExecuteState) -> None:
    if statement.is_select or not _all:
        return
    on = (
        ("insert" if statement.is_insert else None)
        or ("update" if statement.is_update else None)
        or ("delete" if statement.is_delete else None)
    )
    if on is None:
        return
    table = getattr(statement.statement, "table", None)
    names = _names(statement) if on == "update" else None
    for rules in _all:
        rules.check_bulk(on, statement.bind_mapper, table, names)


def _names(statement: ORMExecuteState) -> set[str] | None:
    """Return the names of the columns that an UPDATE sets; None if they are not known."""
    values = getattr(statement.statement, "_values", None)
    # SQLAlchemy 2.0 keeps those of ordered_values() apart.
    values = values or dict(getattr(statement.statement, "_ordered_values", None) or ())
    given = statement.parameters
    rows = given if isinstance(given, list) else [given or {}]
    keys = [*values, *(key for row in rows for key in row)]
    names = {getattr(key, "key", key) for key in keys}
    return names or None


def _is_about(
    rule: Rule[Any], mapper: Mapper[Any] | None, table: object, names: set[str] | None
) -> bool:
    own = cast("Mapper[Any]", mapper_of(rule.entity))
    if mapper is not None:
        if not (mapper.isa(own) or own.isa(mapper)):
            return False
    elif table not in own.tables:
        return False
    if names is None or rule.attribute is None:
        return True
    return not names.isdisjoint(_names_of(own.attrs[rule.attribute]))


def _names_of(attribute: MapperProperty[Any]) -> set[str | None]:
    """Return the names by which an UPDATE may set an attribute: its own, and those of columns."""
    match attribute:
        case CompositeProperty():
            return {attribute.key}.union(*map(_names_of, attribute.props))
        case RelationshipProperty():
            # The foreign keys of a collection are in another table.
            if attribute.direction is not RelationshipDirection.MANYTOONE:
                return set()
            of_column = attribute.parent.get_property_by_column
            return {attribute.key}.union(
                *(_names_of(of_column(cast("Any", column))) for column in attribute.local_columns)
            )
    return {attribute.key, *(column.key for column in getattr(attribute, "columns", ()))}

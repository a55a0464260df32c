"""Ref: a reference to a mapped object in a job's args. Its JSON is the object's primary key.

One module, although long: one class and its helpers serve the worker, the encoding of args,
pydantic and type checkers.
"""

import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast, overload

from sqlalchemy import inspect, select, true
from sqlalchemy.orm import InstanceState, Mapper, Session, scoped_session

from riverrun.errors import (
    InvalidOption,
    InvalidRef,
    NotATransaction,
    ObjectGone,
    ObjectLocked,
)
from riverrun.jobs.json_types import NoFit
from riverrun.jobs.references import (
    Postponed,
    Postponing,
    Reference,
    comparing,
    postponing,
    referred,
)
from riverrun.orm.object_keys import (
    base_of,
    identity_of,
    key_will_change,
    keys_of,
    mapper_of,
    state_of,
    with_article,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

T = TypeVar("T")
E = TypeVar("E")

ForUpdate: TypeAlias = bool | Mapping[str, Any] | None
"""Whether to lock the row, or how: True, or the options of SQLAlchemy's `with_for_update()`."""


class Ref(Reference, Generic[T]):
    """A reference to a mapped object, in args: `order: Ref[Order]`.

    JSON holds the object's primary key: a value, or an array for a key of several columns. Two
    references are equal if they refer to the same row, or, before the object has a key, to the same
    object.

    Args:
        obj: A mapped object. Its key is read when the job is inserted.

    Attributes:
        entity: The mapped class.

    Raises:
        InvalidOption: If `obj` is not a mapped object.
    """

    __slots__ = ("_identity", "_key", "_object", "entity")

    entity: type[T]

    def __init__(self, obj: T) -> None:
        state = state_of(obj)
        if state is None:
            expected = "a mapped object, as in Ref(order); by its key it is Ref.by_key(Order, 5)"
            raise InvalidOption("Ref", obj, expected)
        self.entity = cast("type[T]", state.mapper.class_)
        self._object: T | None = obj
        self._key: Any = None
        self._identity: tuple[Any, ...] | None = None

    @classmethod
    def by_key(cls, entity: type[E], key: object) -> "Ref[E]":
        """Return a reference to the object with a certain primary key, without loading it.

        Args:
            entity: The mapped class.
            key: The primary key as `session.get` takes it: a value, or a tuple for several columns.

        Raises:
            InvalidOption: If `entity` is not a mapped class.
            InvalidRef: If the class cannot have such a key.
        """
        mapper = mapper_of(entity)
        if mapper is None:
            raise InvalidOption("entity", entity, "a mapped class")
        identity = tuple(key) if isinstance(key, tuple | list) else (key,)
        return cls._stored(entity, _written(mapper, identity))

    @classmethod
    def _stored(cls, entity: type[Any], encoded: Any) -> "Ref[Any]":
        ref = cls.__new__(cls)
        ref.entity = entity
        ref._object = None
        ref._identity = _read(inspect(entity), encoded)
        # Pydantic gives a composite key as a tuple; as JSON it is a list.
        ref._key = list(encoded) if isinstance(encoded, tuple) else encoded
        return ref

    @property
    def key(self) -> Any:
        """The primary key as `session.get` takes it; None while the object has none."""
        identity = self._identity
        if identity is None:
            identity = identity_of(_state(self._object))
        if identity is None:
            return None
        return identity[0] if len(identity) == 1 else identity

    def get(
        self, session: Session | scoped_session[Any], *, with_for_update: ForUpdate = None
    ) -> T | None:
        """Return the object; None if it is gone.

        Args:
            session: The session to load it with.
            with_for_update: Whether to lock its row, or how: a dict such as {"skip_locked": True}.
                A locked object is refreshed from its row. With skip_locked the result is also None
                if another transaction has locked the row. Default: None, no lock.

        Raises:
            InvalidRef: If the object has no key, and is not in the session.
            NotATransaction: If `session` is not a session.
        """
        _check_session(session)
        key = self.key
        if key is None:
            if self._object is not None and self._object in session:
                return self._object
            raise _no_key(_state(self._object))
        if with_for_update is None or with_for_update is False:
            return session.get(self.entity, key)
        if not self._lock(session, with_for_update):
            return None
        # Without populate_existing, an object that is loaded already would keep its old values.
        # But changes that are not flushed, as autoflush is off, must not be lost.
        identity = key if isinstance(key, tuple) else (key,)
        identity_key = inspect(self.entity).identity_key_from_primary_key(identity)
        loaded = session.identity_map.get(identity_key)
        changed = loaded is not None and _state(loaded).modified
        return session.get(self.entity, key, populate_existing=not changed)

    def get_one(
        self, session: Session | scoped_session[Any], *, with_for_update: ForUpdate = None
    ) -> T:
        """Return the object.

        Args:
            session: The session to load it with.
            with_for_update: Whether to lock its row, or how, as for `get`.

        Raises:
            ObjectGone: If it is gone. In a worker, this cancels the job, unless the worker was
                registered with another `if_gone`.
            ObjectLocked: If another transaction has locked it and `with_for_update` has
                `skip_locked`.
            InvalidRef, NotATransaction: As for `get`.
        """
        found = self.get(session, with_for_update=with_for_update)
        if found is not None:
            return found
        name, key = self.entity.__name__, self._json()
        skips = isinstance(with_for_update, Mapping) and with_for_update.get("skip_locked")
        if skips and session.execute(self._row()).first() is not None:
            raise ObjectLocked(name, key)
        raise ObjectGone(name, key)

    async def get_async(
        self,
        session: "AsyncSession | async_scoped_session[Any]",
        *,
        with_for_update: ForUpdate = None,
    ) -> T | None:
        """Return the object, or None if it is gone. See `get`; this takes an AsyncSession."""
        return cast("T | None", await _run(session, self.get, with_for_update))

    async def get_one_async(
        self,
        session: "AsyncSession | async_scoped_session[Any]",
        *,
        with_for_update: ForUpdate = None,
    ) -> T:
        """Return the object. See `get_one`; this takes an AsyncSession."""
        return cast("T", await _run(session, self.get_one, with_for_update))

    def _row(self) -> Any:
        """Return a statement that selects the key of the object's row, without an entity.

        It has the tables of the class and of its base classes, in each of which the object has a
        row, and none of subclasses, even if the mapper always loads those.
        """
        mapper = cast("Mapper[Any]", inspect(self.entity))
        # The attributes of this class, not of its base: they choose its rows in a shared table.
        columns = [
            getattr(self.entity, mapper.get_property_by_column(column).key)
            for column in mapper.primary_key
        ]
        key = self.key if len(columns) > 1 else (self.key,)
        same = map(lambda column, value: column == value, columns, key)
        return select(*columns).select_from(mapper.persist_selectable).where(*same)

    def _lock(self, session: Session | scoped_session[Any], how: bool | Mapping[str, Any]) -> bool:
        # The statement has only the class's own tables: PostgreSQL refuses to lock the nullable
        # side of an outer join, which eager loading and subclasses would add.
        options = {} if how is True else dict(cast("Mapping[str, Any]", how))
        # SQLAlchemy 2.0 caches a statement with key_share and one without as the same. A criterion
        # that is always true is not sent, but distinguishes our statements from each other and
        # from the host's.
        always = [true()] * (2 if options.get("key_share") else 1)
        statement = self._row().where(*always).with_for_update(**options)
        return session.execute(statement).first() is not None

    # What the encoding of args calls

    def refers_to(self, value: object) -> bool:
        """Return whether this is a reference to the mapped object `value`."""
        return state_of(value) is not None and self == Ref(value)

    @classmethod
    def to_json(cls, value: Any, annotation: Any) -> Any:
        """Return the key of `value`, a reference or a mapped object, as JSON.

        Raises:
            InvalidRef: If it has no key, or its class is not the annotation's.
            NoFit: If it is neither a reference nor a mapped object.
        """
        if isinstance(value, Ref):
            obj, entity = value._object, value.entity
        elif (state := state_of(value)) is not None:
            obj, entity = value, state.class_
        else:
            raise NoFit(value, annotation)
        if annotation is not Ref:
            _check_class(entity, _declared(annotation))
        if obj is None:
            return value._key
        if (objects := referred.get()) is not None:
            objects.append(obj)
        return _json_of(_state(obj))

    @classmethod
    def from_json(cls, encoded: Any, annotation: Any) -> Self:
        """Return the reference with the key `encoded`.

        Raises:
            InvalidRef: If it is not a key of the annotation's class.
        """
        mapper = _declared(annotation)
        return cast("Self", cls._stored(mapper.class_, encoded))

    @classmethod
    def is_exact(cls, annotation: Any) -> Callable[[Any], bool] | None:
        """Return a check whether a value is a reference that is equal after a round trip."""
        try:
            mapper = _declared(annotation)
            if not all(column.exact for column in keys_of(mapper).columns):
                return None
        except InvalidRef:
            return None

        def exact(value: Any) -> bool:
            if type(value) is not Ref or not _fits(value.entity, mapper):
                return False
            waiting = postponing.get()
            return waiting is None or value._object is None or _comes(value._object, waiting)

        return exact

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: object) -> Any:
        """Return pydantic's schema: a reference or an object in Python, a key in JSON."""
        from pydantic_core import core_schema

        def from_python(value: Any) -> Any:
            ref = value if isinstance(value, Ref) else Ref(value)
            if source is not Ref:
                _check_class(ref.entity, _declared(source))
            return ref

        def from_key(encoded: Any) -> Any:
            return cls.from_json(encoded, source)

        def key_of(value: Any) -> Any:
            return cls.to_json(value, source)

        key = core_schema.no_info_after_validator_function(from_key, _key_schema(source))
        return core_schema.json_or_python_schema(
            json_schema=key,
            python_schema=core_schema.no_info_plain_validator_function(from_python),
            serialization=core_schema.plain_serializer_function_ser_schema(
                key_of,
                return_schema=_key_schema(source),
                when_used="json",
            ),
        )

    def _json(self) -> Any:
        """Return the key as JSON; None while there is none."""
        if self._object is None:
            return self._key
        try:
            return _json_of(_state(self._object))
        except InvalidRef:
            return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ref):
            return self.refers_to(other) if comparing.get() else NotImplemented
        if self._object is not None and self._object is other._object:
            return True
        key = self._json()
        return key is not None and _root(self) is _root(other) and key == other._json()

    def __hash__(self) -> int:
        # By the class alone: the key comes with the flush, and the hash must not change then.
        return hash(_root(self))

    def __repr__(self) -> str:
        key = self._json()
        return f"Ref({self.entity.__name__}, {'no key yet' if key is None else repr(key)})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        key = self.key
        if key is None:
            raise _no_key(_state(self._object))
        return Ref.by_key, (self.entity, key)

    if TYPE_CHECKING:
        # Because of these, type checkers accept an Order, too, for a field that is a Ref[Order].

        @overload
        def __get__(self, instance: None, owner: object, /) -> "Ref[T]": ...

        @overload
        def __get__(self, instance: object, owner: object, /) -> "Ref[T]": ...

        def __get__(self, instance: object, owner: object, /) -> "Ref[T]": ...

        def __set__(self, instance: Any, value: "T | Ref[T]") -> None: ...


def _check_session(session: object) -> None:
    if not isinstance(session, Session | scoped_session):
        advice = "With an AsyncSession: await ref.get_async(session)"
        raise NotATransaction(type(session).__name__, advice, "a Session or scoped_session")


def _state(obj: object) -> InstanceState[Any]:
    state = state_of(obj)
    assert state is not None  # noqa: S101  a reference without a key has an object
    return state


def _root(ref: Ref[Any]) -> object:
    # Not SQLAlchemy's identity class: a subclass without a polymorphic identity has its own.
    return base_of(ref.entity)


@lru_cache(maxsize=1024)
def _declared(annotation: Any) -> Mapper[Any]:
    """Return the mapper of the class in `Ref[...]`.

    Raises:
        InvalidRef: If there is none.
    """
    (target,) = typing.get_args(annotation) or (None,)
    if isinstance(target, TypeVar):
        target = target.__bound__
    mapper = mapper_of(target)
    if mapper is None:
        name = "Ref" if target is None else f"Ref[{getattr(target, '__name__', target)}]"
        raise InvalidRef(f"{name} names no mapped class; expected one, as in Ref[Order]")
    return mapper


def _fits(entity: type, declared: Mapper[Any]) -> bool:
    """Return whether an object of `entity` is found by its key as one of the declared class."""
    if entity is declared.class_:
        return True
    # A class that inherits "concretely" has a table of its own, and keys of its own.
    return issubclass(entity, declared.class_) and base_of(entity) is base_of(declared.class_)


def _check_class(entity: type, declared: Mapper[Any]) -> None:
    if not _fits(entity, declared):
        given, expected = with_article(entity.__name__), with_article(declared.class_.__name__)
        if given == expected:
            given += f" of {entity.__module__}, mapped apart"
            expected += f" of {declared.class_.__module__}"
        if issubclass(entity, declared.class_):
            given += ", which has a table of its own, by concrete inheritance"
        raise InvalidRef(f"a reference to {given}; expected one to {expected}")


def _json_of(state: InstanceState[Any]) -> Any:
    identity = identity_of(state)
    if identity is None or key_will_change(state):
        waiting = postponing.get()
        if waiting is not None and state.session_id == waiting.session_key:
            waiting.waits = True
            raise Postponed
        raise _no_key(state)
    return _written(state.mapper, identity)


def _comes(obj: object, waiting: Postponing) -> bool:
    """Return whether an object has a key, or will get it with the flush that is waited for."""
    state = _state(obj)
    return state.key is not None or state.session_id == waiting.session_key


def _no_key(state: InstanceState[Any]) -> InvalidRef:
    name = with_article(state.class_.__name__)
    if state.session_id is None:
        return InvalidRef(f"{name} that is in no session, or was rolled back; session.add() it")
    if state.key is not None:
        return InvalidRef(
            f"{name} whose primary key was changed; flush the session, which writes the new key. "
            "client.add(session, args) inserts the job with that flush"
        )
    return InvalidRef(
        f"{name} without a primary key; did you flush? A key is given to an object when its "
        "session is flushed. client.add(session, args) inserts the job with that flush"
    )


def _written(mapper: Mapper[Any], identity: tuple[Any, ...]) -> Any:
    try:
        return keys_of(mapper).write(identity)
    except InvalidRef as error:
        raise InvalidRef(f"{mapper.class_.__name__} {error}") from None


def _read(mapper: Mapper[Any], encoded: Any) -> tuple[Any, ...]:
    try:
        return keys_of(mapper).read(encoded)
    except InvalidRef as error:
        raise InvalidRef(f"{mapper.class_.__name__} {error}") from None


def _key_schema(annotation: Any) -> Any:
    """Return pydantic's schema of the keys of an annotation's class."""
    from pydantic_core import core_schema

    known: Mapping[type, Any] = {
        bool: core_schema.bool_schema(strict=True),
        int: core_schema.int_schema(strict=True),
        float: core_schema.float_schema(),
        str: core_schema.str_schema(strict=True),
    }
    try:
        columns = [known[column.json_type] for column in keys_of(_declared(annotation)).columns]
    except InvalidRef:  # not mapped yet
        return core_schema.any_schema()
    return columns[0] if len(columns) == 1 else core_schema.tuple_schema(columns)


async def _run(session: Any, get: Callable[..., Any], with_for_update: ForUpdate) -> Any:
    if not hasattr(session, "run_sync"):
        advice = "With a Session: ref.get(session), without await"
        expected = "an AsyncSession or async_scoped_session"
        raise NotATransaction(type(session).__name__, advice, expected)
    return await session.run_sync(get, with_for_update=with_for_update)

"""SQL expressions over jobs: their kind, and the fields of their args.

`Job` inherits them from `JobExpressions`. They name no table but that of the class, so they are
right in whatever schema it is. They are one module, although long, because each class here makes
objects of the next: of jobs, their args, and a field of these.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    Label,
    Numeric,
    Select,
    SelectBase,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    and_,
    any_,
    case,
    cast,
    func,
    inspect,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedClass, AliasedInsp
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import CollectionAggregate
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeEngine

from riverrun.errors import InvalidOption, InvalidRef
from riverrun.jobs.args import kind_of
from riverrun.jobs.json_types import LISTS, is_struct, shown_type
from riverrun.jobs.json_values import json_text
from riverrun.jobs.references import Reference, reference_class
from riverrun.orm.fields import Field, Unfit, Unresolved, fields_of
from riverrun.orm.object_keys import is_mapped, mapper_of
from riverrun.orm.refs import Ref
from riverrun.orm.sql_json import Mismatch, column_json, key_json, members, unwrapped

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import SQLColumnExpression

    _Operators = SQLColumnExpression[Any]
else:
    from sqlalchemy.sql.operators import ColumnOperators

    _Operators = ColumnOperators


class _Whole(TypeDecorator[int]):
    """An int of any size: numeric in SQL."""

    impl = Numeric
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> int | None:  # noqa: ARG002
        """Return the number as an int."""
        return None if value is None else int(value)


_SQL_TYPES: dict[Any, tuple[str, TypeEngine[Any], TypeEngine[Any]]] = {
    bool: ("boolean", Boolean(), Boolean()),
    int: ("number", Numeric(), _Whole()),
    float: ("number", Float(53), Float(53)),
    str: ("string", Text(), Text()),
    Decimal: ("string", Numeric(), Numeric()),
    UUID: ("string", Uuid(), Uuid()),
    datetime: ("string", DateTime(timezone=True), DateTime(timezone=True)),
    date: ("string", Date(), Date()),
    time: ("string", Time(), Time()),
    timedelta: ("string", Interval(), Interval()),
}
"""By a field's annotation: its JSON type, its SQL type, and the type that reads results."""


class JobExpressions:
    """Expressions for querying jobs by kind and args; a base class of `Job`."""

    __slots__ = ()

    @classmethod
    def kind_is(cls, args_type: Any) -> ColumnElement[bool]:
        """Return a criterion: jobs of the kind of `args_type`, or of one of its kind_aliases.

        The index river_job_kind serves it.

        Args:
            args_type: A class of args that has a kind.

        Raises:
            InvalidOption: If it has no kind.
        """
        kinds = kinds_of(args_type)
        column: Any = cls.kind  # type: ignore[attr-defined]
        same: ColumnElement[bool] = column == kinds[0] if len(kinds) == 1 else column.in_(kinds)
        return same

    @classmethod
    def args_of(cls, args_type: Any) -> "ArgsOf":
        """Return the args of jobs of one kind, with a SQL expression as attribute for each field.

            select(Job).where(Job.args_of(SendReceipt).order == order.id)

        Args:
            args_type: A class of args that has a kind.

        Raises:
            InvalidOption: If it has no kind, or is no attrs class, dataclass or pydantic model.
        """
        try:
            fields_of(args_type)
        except Unresolved:
            pass  # a class that it refers to may be defined later
        except Unfit as error:
            raise InvalidOption("args_type", args_type, f"a class of args: {error}") from None
        return ArgsOf(cls, args_type)


def kinds_of(args_type: Any) -> tuple[str, ...]:
    """Return the kind of a class of args, then its aliases.

    Raises:
        InvalidOption: If it has no kind.
    """
    if isinstance(args_type, str):
        expected = f"a class of args that has a kind; by its name: Job.kind == {args_type!r}"
        raise InvalidOption("args_type", args_type, expected)
    kind = kind_of(args_type)
    return (kind, *(alias for alias in getattr(args_type, "kind_aliases", ()) if alias != kind))


class ArgsOf:
    """The args of jobs of one kind; see `Job.args_of`."""

    def __init__(self, job: type[JobExpressions], args_type: type) -> None:
        self._job = job
        self._args_type = args_type

    def __getattr__(self, name: str) -> "Arg":
        if name.startswith("__"):  # copy and pickle look for such names
            raise AttributeError(name)
        field = fields_of(self._args_type).get(name)
        if field is None:
            known = ", ".join(fields_of(self._args_type))
            raise AttributeError(
                f"{self._args_type.__name__} has no field {name!r}; it has {known}"
            )
        return Arg(self._job, self._args_type, field, (field.key,), field.annotation)

    def __getitem__(self, name: str) -> "Arg":
        """Return the expression of the field `name`; for names that cannot be attributes."""
        return getattr(self, name)  # type: ignore[no-any-return]


class Arg(_Operators):
    """The value of one field of a job's args, as a SQL expression.

    Indexes serve `==` and `in_`: beside the kind they compare `args @> ...`, which is a lookup in
    river_job_args_index. They compare JSON, so a time equals only a time that was written with the
    same offset from UTC. Compared with a column, they also support a hash join.

    A field that is a Ref[...] can be compared with an object, a reference, a bare key, the class of
    the objects or an alias of it, or columns with their key.

    Every other comparison works, too, and includes the kind. But no index helps it: all jobs of the
    kind are read. NULL stands for None, for a missing field, and for JSON of another type. For a
    field that is a list, the index serves `contains` as it does `==`.

    `arg["key"]` is a part of a field that is an object.
    """

    __hash__ = object.__hash__

    def __init__(
        self,
        job: type[JobExpressions],
        args_type: type,
        field: Field,
        path: tuple[str, ...],
        annotation: Any,
    ) -> None:
        self._job: Any = job
        self._args_type = args_type
        self._field = field
        self._path = path
        self._annotation = annotation

    def __repr__(self) -> str:
        return f"<Job.args_of({self._args_type.__name__}).{'.'.join(self._path)}>"

    def __clause_element__(self) -> ColumnElement[Any]:
        """Return the value, typed by the field's annotation."""
        held = self._json()
        chosen = members(self._annotation)
        known = _known_type(chosen[0]) if len(chosen) == 1 else None
        if known is None:
            return held
        json_type, sql_type, read = known
        text = self._json(as_text=True)
        # Other kinds may hold anything in a field of that name. The cast must not reach those.
        kinds = kinds_of(self._args_type)
        of_kind = self._job.kind.in_([_constant(kind) for kind in kinds])
        value = case(
            (
                and_(of_kind, func.jsonb_typeof(held) == _constant(json_type)),
                text if isinstance(sql_type, Text) else cast(text, sql_type),
            )
        )
        return type_coerce(value, read)

    @property
    def expression(self) -> ColumnElement[Any]:
        """The value, typed by the field's annotation."""
        return self.__clause_element__()

    def _json(self, *, as_text: bool = False) -> ColumnElement[Any]:
        held: ColumnElement[Any] = self._job.args
        for name in self._path[:-1]:
            held = held.op("->", return_type=JSONB())(_constant(name))
        last = _constant(self._path[-1])
        if as_text:
            return held.op("->>", return_type=Text())(last)
        return held.op("->", return_type=JSONB())(last)

    def __getitem__(self, key: Any) -> "Arg":  # type: ignore[override]
        """Return a part of an object: a field of a class, by its name, or a key of a mapping.

        Raises:
            InvalidOption: If the field is not an object, or its class has no such field.
        """
        if not isinstance(key, str):
            raise InvalidOption("key", key, "the name of a part of an object")
        chosen = members(self._annotation)
        inner = chosen[0] if len(chosen) == 1 else None
        origin, arguments = get_origin(inner) or inner, get_args(inner)
        if isinstance(inner, type) and is_struct(inner):
            part = fields_of(inner).get(key)
            if part is None:
                known = ", ".join(fields_of(inner))
                raise InvalidOption("key", key, f"a field of {inner.__name__}: {known}")
            return Arg(self._job, self._args_type, part, (*self._path, part.key), part.annotation)
        if is_typeddict(inner):
            hints = get_type_hints(inner)
            if key not in hints:
                known = ", ".join(hints)
                raise InvalidOption("key", key, f"a key of {shown_type(inner)}: {known}")
            return self._part(key, hints[key])
        if inner in (Any, object) or (isinstance(origin, type) and issubclass(origin, dict)):
            return self._part(key, arguments[1] if len(arguments) == 2 else Any)
        raise InvalidOption("key", key, f"none: {self!r} is {shown_type(self._annotation)}")

    def _part(self, key: str, annotation: Any) -> "Arg":
        part = Field(name=key, key=key, annotation=annotation, pydantic=self._field.pydantic)
        return Arg(self._job, self._args_type, part, (*self._path, key), annotation)

    def label(self, name: str | None) -> Label[Any]:
        """Return the value under a name, as a column of a select."""
        return self.__clause_element__().label(name)

    # The methods that SQLAlchemy's operators call

    def operate(self, op: OperatorType, *other: Any, **options: Any) -> ColumnElement[Any]:
        """Return the expression of an operator on the field's value."""
        of_kind = self._job.kind_is(self._args_type)
        match op:
            case _ if other and isinstance(other[0], CollectionAggregate):
                pass  # any_() or all_(), whose own type is boolean
            case operators.eq if isinstance(other[0], Arg):
                # Both are JSON, and need no types that SQL knows.
                same = self._json() == other[0]._json()
                return and_(of_kind, other[0]._job.kind_is(other[0]._args_type), same)
            case operators.eq | operators.is_ if other[0] is None:
                return and_(of_kind, self._json(as_text=True).is_(None))
            case operators.ne | operators.is_not if other[0] is None:
                return and_(of_kind, self._json(as_text=True).is_not(None))
            case operators.eq:
                return and_(of_kind, self._equals(other[0]))
            case operators.ne if _columns(other[0]) is None:
                return and_(of_kind, ~and_(*self._same(other[0])))
            case operators.in_op if _is_list(other[0]):
                return and_(of_kind, self._one_of(other[0]))
            case operators.not_in_op if _is_list(other[0]):
                return and_(of_kind, ~self._one_of(other[0]))
            case operators.in_op if self._is_json_key() and isinstance(other[0], SelectBase):
                return and_(of_kind, self._json().in_(self._keys(other[0])))
            case operators.not_in_op if self._is_json_key() and isinstance(other[0], SelectBase):
                return and_(of_kind, self._json().not_in(self._keys(other[0])))
            case operators.contains_op if self._items() is not None:
                return and_(of_kind, self._contains(other[0]))
        result = op(self.__clause_element__(), *map(_plain, other), **options)
        if isinstance(result.type, Boolean):
            return and_(of_kind, result)
        return result  # type: ignore[no-any-return]

    def reverse_operate(self, op: OperatorType, other: Any, **options: Any) -> ColumnElement[Any]:
        """Return the expression of an operator with the field's value on its right side."""
        return op(_plain(other), self.__clause_element__(), **options)  # type: ignore[no-any-return]

    def _equals(self, other: Any) -> ColumnElement[bool]:
        columns = _columns(other)
        if columns is None:
            return and_(*self._same(other))
        value = self._value(other, columns, self._annotation)
        return and_(*joined_args(self._job.args, self._path, value))

    def _value(self, other: Any, columns: list[Any], annotation: Any) -> ColumnElement[Any]:
        """Return columns as the JSON that a field with this annotation has."""
        try:
            if _entity(annotation) is not None:
                return key_json(columns, members(annotation)[0]).value
            if len(columns) == 1:
                pydantic = self._field.pydantic
                return column_json(columns[0], annotation, pydantic=pydantic).value
        except Mismatch as error:
            raise InvalidOption(
                "other", other, f"a column that {self!r} may equal; {error}"
            ) from None
        raise InvalidOption("other", other, "a column, or several for a Ref[...]")

    def _contains(self, other: Any) -> ColumnElement[bool]:
        annotation, columns = self._items(), _columns(other)
        if columns is None:
            item = Field(
                name=self._field.name,
                key=self._field.key,
                annotation=annotation,
                pydantic=self._field.pydantic,
            )
            return self._holds([_encoded(item, other)])
        list_ = func.jsonb_build_array(self._value(other, columns, annotation))
        return joined_args(self._job.args, self._path, list_)[0]

    def _is_json_key(self) -> bool:
        """Return whether this is a reference whose key SQL has no type for, only JSON."""
        chosen = members(self._annotation)
        return _entity(self._annotation) is not None and _known_type(chosen[0]) is None

    def _keys(self, source: SelectBase) -> SelectBase:
        """Return the keys that a subquery selects as JSON."""
        if isinstance(source, Select):
            # The select keeps its place in the statement, so that it stays correlated.
            columns = list(source.selected_columns)
            return source.with_only_columns(
                self._value(source, columns, self._annotation), maintain_column_froms=True
            )
        selected = source.subquery()
        return select(self._value(source, list(selected.c), self._annotation))

    def _one_of(self, values: Iterable[object]) -> ColumnElement[bool]:
        encoded = [_encoded(self._field, value) for value in values]
        if any(isinstance(item, dict | list) for item in encoded):
            return or_(*(and_(*self._same(value)) for value in values))
        texts = [json_text(self._around(item)) for item in encoded]
        return _holds(self._job.args, any_(cast(literal(texts, ARRAY(Text)), ARRAY(JSONB))))

    def _same(self, value: object) -> list[ColumnElement[bool]]:
        encoded = _encoded(self._field, value)
        same = [self._holds(encoded)]
        if isinstance(encoded, dict | list):
            # @> only tests whether it is contained.
            same.append(self._json() == cast(literal(json_text(encoded), Text), JSONB))
        return same

    def _holds(self, encoded: Any) -> ColumnElement[bool]:
        text = json_text(self._around(encoded))
        return _holds(self._job.args, cast(literal(text, Text), JSONB))

    def _around(self, encoded: Any) -> Any:
        for name in reversed(self._path):
            encoded = {name: encoded}
        return encoded

    def _items(self) -> Any:
        """Return the annotation of a list's items; None if the field is not a list."""
        chosen = members(self._annotation)
        if len(chosen) != 1 or (get_origin(chosen[0]) or chosen[0]) not in LISTS:
            return None
        arguments = get_args(chosen[0])
        return arguments[0] if arguments else Any


def joined_args(args: Any, path: tuple[str, ...], value: Any) -> list[ColumnElement[bool]]:
    """Return criteria: args hold `value`, a jsonb expression of another table, at `path`.

    There are two equivalent ones. By the first, PostgreSQL looks up one value in
    river_job_args_index; by the second, it joins many by hash.
    """
    inner = value
    for name in reversed(path):
        inner = func.jsonb_build_object(literal(name, Text), inner)
    held = args
    for name in path:
        held = held.op("->", return_type=JSONB())(literal(name, Text))
    return [_holds(args, inner), held == value]


def _constant(text: str) -> ColumnElement[Any]:
    # Part of the statement's text, so that GROUP BY recognizes the expression.
    return literal(text, Text, literal_execute=True)


def _holds(args: Any, part: Any) -> ColumnElement[bool]:
    same: ColumnElement[bool] = args.op("@>", is_comparison=True, return_type=Boolean())(part)
    return same


def _known_type(member: Any) -> tuple[str, TypeEngine[Any], TypeEngine[Any]] | None:
    member = unwrapped(member)
    if reference_class(member) is not None:
        member = _key_type(_entity(member))
    values: Iterable[Any] = ()
    if get_origin(member) is Literal:
        values = get_args(member)
    elif isinstance(member, type) and issubclass(member, Enum):
        values = [item.value for item in member]
    kinds = {type(value) for value in values}
    if len(kinds) == 1:
        member = kinds.pop()
    try:
        return _SQL_TYPES.get(member)
    except TypeError:  # an annotation that is not hashable
        return None


def _key_type(entity: Any) -> Any:
    """Return the Python type of a class's primary key, if SQL compares it in the same way."""
    mapper = mapper_of(entity)
    keys = () if mapper is None else mapper.primary_key
    known = ((Integer, int), (Uuid, UUID), (String, str))
    found = (python for sql, python in known if len(keys) == 1 and isinstance(keys[0].type, sql))
    return next(found, None)


def _encoded(field: Field, value: object) -> Any:
    """Return `value` as JSON. For a field that is a reference, it may be a bare key.

    Raises:
        InvalidOption: If the field cannot hold it.
    """
    try:
        entity = _entity(field.annotation)
        if is_mapped(value) and any(map(reference_class, members(field.annotation))):
            value = Ref(value)
        elif entity is not None and not isinstance(value, Reference):
            value = None if value is None else Ref.by_key(entity, value)
        return field.encode(value)
    except (Unfit, InvalidRef) as error:
        raise InvalidOption(field.name, value, f"a value of it; {error}") from error


def _entity(annotation: Any) -> Any:
    """Return the mapped class of a field that is a reference, even an optional one; else None."""
    chosen = members(annotation)
    if len(chosen) != 1 or reference_class(chosen[0]) is None:
        return None
    return next(iter(get_args(chosen[0])), None)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _is_list(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes)


def _is_sql(value: object) -> bool:
    return hasattr(value, "__clause_element__") or isinstance(value, ColumnElement)


def _columns(value: Any) -> list[Any] | None:
    """Return the columns of `value`: a column, a tuple of columns, or a class by its key.

    The class may be an alias of a mapped class.

    Return None if it is not SQL.
    """
    found = inspect(value, raiseerr=False) if isinstance(value, type | AliasedClass) else None
    if isinstance(found, Mapper | AliasedInsp):
        # The key's attributes of this class, because a subclass has its own.
        keys = map(found.mapper.get_property_by_column, found.mapper.primary_key)
        return [_clause(getattr(value, attribute.key)) for attribute in keys]
    if isinstance(value, tuple) and any(map(_is_sql, value)):
        return [_clause(column) for column in value]
    return [_clause(value)] if _is_sql(value) else None


def _clause(value: Any) -> Any:
    return value.__clause_element__() if hasattr(value, "__clause_element__") else value

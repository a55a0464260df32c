"""Args come back as they were given, or are refused with the place, what came and what is taken."""

import collections
import dataclasses
import enum
import json
from collections import abc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field

from riverrun.errors import InvalidArgs, InvalidOption, UndecodableArgs
from riverrun.jobs.args import JobArgs, RawArgs, decode, encode, kind_of

T = TypeVar("T")
T0 = datetime(2026, 1, 2, tzinfo=UTC)
U = UUID("12345678-1234-5678-1234-567812345678")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    red = "r"
    two = 2


class Word(enum.StrEnum):
    hello = "hello"


class Level(enum.IntEnum):
    low = 1


class Flags(enum.IntFlag):
    a = 1
    b = 2


class Typed(TypedDict):
    number: int
    key: UUID


class Pair(NamedTuple):
    number: int
    text: str


@attrs.frozen
class Base:
    a: int


@attrs.frozen
class Sub(Base):
    b: int = 0


@attrs.frozen
class Twin:
    a: int


@attrs.frozen
class Box(Generic[T]):
    item: T


@attrs.define
class Counted:
    a: int = 0
    count: int = attrs.field(init=False, default=5)


@attrs.define(eq=False)
class Unequal:
    a: int = 0


@dataclasses.dataclass
class Checked:
    """A class that refuses what was put into it later."""

    positive: int

    def __post_init__(self) -> None:
        if self.positive < 0:
            raise ValueError("negative")


class Model(BaseModel):
    a: int


class SubModel(Model):
    b: int = 0


def counted(count: int) -> Counted:
    """Return one whose count was set."""
    value = Counted()
    value.count = count
    return value


def changed(number: int) -> Checked:
    """Return one that was changed after it was made."""
    value = Checked(1)
    value.positive = number
    return value


def classes_of(annotation: Any) -> list[Any]:
    """Return an attrs class and a dataclass with one field `x`, so annotated."""

    def made(name: str) -> Any:
        body = {"__annotations__": {"x": annotation}, "__module__": __name__}
        return type(name, (JobArgs,), body, kind="kept")

    return [
        attrs.frozen(made("A")),
        dataclasses.dataclass(made("B")),
    ]


# What is taken, and its JSON: which must never change, for rows and unique keys are made of it.
TAKEN: list[tuple[Any, Any, Any]] = [
    (int, 5, 5),
    (float, 1.5, 1.5),
    (float, 3, 3),
    (float, 1e300, 1e300),
    (bool, False, False),
    (str, "x", "x"),
    (str, Word.hello, "hello"),
    (None, None, None),
    (bytes, b"x\xff", "c>e"),
    (datetime, datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),
    (date, date(2026, 1, 2), "2026-01-02"),
    (time, time(1, 2, 3, 4), "01:02:03.000004"),
    (timedelta, timedelta(days=1, hours=2, seconds=3, microseconds=4), "P1DT2H3.000004S"),
    (timedelta, -timedelta(minutes=5), "-PT5M"),
    (timedelta, timedelta(0), "PT0S"),
    (timedelta, timedelta.min, "-P999999999D"),
    (timedelta, timedelta.max, "P999999999DT23H59M59.999999S"),
    (UUID, U, str(U)),
    (Decimal, Decimal("1.10"), "1.10"),
    (Path, Path("/a/b"), "/a/b"),
    (Color, Color.red, "r"),
    (Color, Color.two, 2),
    (Word, Word.hello, "hello"),
    (Level, Level.low, 1),
    (Flags, Flags.a | Flags.b, 3),
    (Literal["a", 1], "a", "a"),
    (UserId, 5, 5),
    (Annotated[int, "x"], 5, 5),
    (Optional[UUID], None, None),  # noqa: UP045
    (UUID | None, U, str(U)),
    (int | str, "5", "5"),
    (int | UUID, U, str(U)),
    (list[str], ["a"], ["a"]),
    (list[UUID], [U], [str(U)]),
    (list[list[int]], [[1], []], [[1], []]),
    (abc.Sequence[int], [1], [1]),
    (tuple[int, str], (1, "a"), [1, "a"]),
    (tuple[UUID, ...], (U, U), [str(U), str(U)]),
    (set[int], {1}, [1]),
    (frozenset[date], frozenset({date(2026, 1, 2)}), ["2026-01-02"]),
    (abc.Set[int], {1}, [1]),
    (collections.deque[int], collections.deque([1]), [1]),
    (dict[str, UUID], {"a": U}, {"a": str(U)}),
    (dict[int, str], {1: "a", -2: "b"}, {"1": "a", "-2": "b"}),
    (dict[UUID, Base], {U: Base(1)}, {str(U): {"a": 1}}),
    (dict[Decimal, int], {Decimal("1.5"): 1}, {"1.5": 1}),
    (dict[date, list[int]], {date(2026, 1, 2): [1]}, {"2026-01-02": [1]}),
    (dict[timedelta, int], {timedelta(days=1): 1}, {"P1D": 1}),
    (dict[Color, int], {Color.red: 1, Color.two: 2}, {"r": 1, "2": 2}),
    (dict[Level, int], {Level.low: 1}, {"1": 1}),
    (dict[UserId, int], {UserId(1): 1}, {"1": 1}),
    (abc.Mapping[int, dict[int, int]], {1: {2: 3}}, {"1": {"2": 3}}),
    (collections.defaultdict[str, int], collections.defaultdict(int, a=1), {"a": 1}),
    (collections.Counter[str], collections.Counter("aab"), {"a": 2, "b": 1}),
    (Typed, {"number": 1, "key": U}, {"number": 1, "key": str(U)}),
    (Pair, Pair(1, "a"), [1, "a"]),
    (dict[UUID, list[Pair]], {U: [Pair(1, "a")]}, {str(U): [[1, "a"]]}),
    (Base, Base(1), {"a": 1}),
    (Base | None, Base(1), {"a": 1}),
    (list[Base], [Base(1)], [{"a": 1}]),
    (Box[int], Box(1), {"item": 1}),
    (Box[UUID], Box(U), {"item": str(U)}),
    (Box, Box("x"), {"item": "x"}),
    (Counted, counted(5), {"a": 0}),
    (Model, Model(a=1), {"a": 1}),
    (list[Model | None], [Model(a=1), None], [{"a": 1}, None]),
    (Any, {"a": [1, None, 2.5, "x"]}, {"a": [1, None, 2.5, "x"]}),
    (object, [1], [1]),
]


@pytest.mark.parametrize(
    ("annotation", "value", "stored"), TAKEN, ids=[f"{a}-{v!r}"[:60] for a, v, _ in TAKEN]
)
def test_comes_back(annotation: Any, value: Any, stored: Any) -> None:
    """A value of its annotation is stored in a form that never changes, and comes back equal."""
    for cls in classes_of(annotation):
        encoded = encode(cls(value))
        assert json.loads(json.dumps(encoded)) == {"x": stored}
        back = decode("kept", json.loads(json.dumps(encoded)), cls)
        assert back == cls(value) == decode("kept", encoded, cls)


REFUSED: list[tuple[Any, Any, str]] = [
    (int, None, r"\$\.x is None; expected int; did you flush\?"),
    (int, "5", r"\$\.x is '5'; expected int"),
    (int, 1.7, r"\$\.x is 1.7; expected int"),
    (int, 1.0, r"\$\.x is 1.0; expected int"),
    (int, True, r"\$\.x is True; expected int"),
    (bool, 1, "expected bool"),
    (bool, "false", "expected bool"),
    (bool, None, "expected bool"),
    (float, "1", "expected float"),
    (float, True, "expected float"),
    (float, 2**53 + 1, "would get 9007199254740992.0"),
    (str, None, r"\$\.x is None; expected str$"),
    (str, 5, "expected str"),
    (str, b"x", "expected str|type bytes"),
    (None, 1, "expected None"),
    (bytes, "x", "expected bytes"),
    (bytes, None, "expected bytes"),
    (date, datetime(2026, 1, 2), "expected date"),
    (date, "2026-01-02", "expected date"),
    (datetime, date(2026, 1, 2), "expected datetime"),
    (datetime, None, "expected datetime"),
    (time, "01:02", "expected time"),
    (timedelta, 5, "expected timedelta"),
    (UUID, str(U), r"would get UUID\('12345678"),
    (UUID, None, r"expected UUID; did you flush\?"),
    (Decimal, 1.5, "expected Decimal"),
    (Decimal, Decimal("nan"), "expected Decimal"),
    (Path, "/a", "expected Path"),
    (Color, "r", "expected Color"),
    (Word, "hello", "expected Word"),
    (Level, 1, "expected Level"),
    (Literal["a", "b"], "c", r"expected Literal\['a', 'b'\]"),
    (UserId, "5", r"\$\.x is '5'"),
    (Optional[int], "5", "'5'"),  # noqa: UP045
    (int | str, 1.5, "1.5"),
    (str | datetime, datetime(2026, 1, 2), "would get '2026"),
    (date | datetime, date(2026, 1, 2), r"expected .*date \| datetime"),
    (Union[Base, Twin], Twin(1), "disambiguate|unique attributes"),  # noqa: UP007
    (Any, datetime(2026, 1, 2), "would get '2026|type datetime"),
    (Any, (1,), r"would get \[1\] \(list\)"),
    (Any, [{"a": (1,)}], r"\$\.x"),
    (Any, U, "UUID"),
    (Any, {1: 2}, "has the key 1"),
    (Any, 1e23, "would get 100000000000000000000000"),
    (Any, Base(1), "Base"),
    (list[str], "abc", "expected list"),
    (list[str], None, "expected list"),
    (list[str], [None], r"\$\.x\[0\] is None; expected str"),
    (list[str], ("a",), "would get \\['a'\\]"),
    (list[int], [1, "2"], r"\$\.x\[1\] is '2'; expected int"),
    (list[int], {1}, "expected list"),
    (abc.Sequence[int], (1,), "expected .*Sequence"),
    (tuple[int, str], [1, "a"], "expected tuple"),
    (tuple[int, str], (1,), "expected tuple"),
    (tuple[int, ...], (1, None), r"\$\.x\[1\] is None; expected int"),
    (set[int], [1], "expected set"),
    (dict[str, int], {"a": "1"}, r"\$\.x\.a is '1'; expected int"),
    (dict[int, str], {"1": "a"}, "would get {1: 'a'}"),
    (dict[tuple[int, int], int], {(1, 2): 3}, "expected dict"),
    (dict[str, int], [("a", 1)], "expected dict"),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2), "OrderedDict"),
    (Typed, {"number": "1", "key": U}, r"\$\.x\.number is '1'; expected int"),
    (Typed, {"number": 1}, "expected Typed"),
    (Pair, (1, "a"), "expected Pair"),
    (Pair, Pair("1", "a"), r"\$\.x\[0\] is '1'; expected int"),  # type: ignore[arg-type]
    (Base, None, "expected Base"),
    (Base, {"a": 1}, "expected Base"),
    (Base, Base("1"), r"\$\.x\.a is '1'; expected int"),  # type: ignore[arg-type]
    (Base, Sub(1, 2), r"would get Base\(a=1\)"),
    (list[Base], [Base(1), Sub(1)], r"\$\.x\[1\] is Sub"),
    (Base | None, Sub(1, 2), "would get Base"),
    (dict[UUID, Base], {U: Sub(1)}, "would get Base"),
    (Box[int], Box("1"), "expected int"),
    (Box, Box(U), "UUID"),
    (Counted, counted(9), r"\$\.x\.count is 9, and its worker would get 5"),
    (Checked, changed(-1), "negative"),
    (Model, SubModel(a=1, b=2), "would get Model"),
    (Model, None, "expected Model"),
    (Model, {"a": 1}, "expected Model"),
    (Model, Model.model_construct(a="1"), r"\$\.x\.a is '1'"),
    (complex, 1j, "complex"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("annotation", "value", "problem"), REFUSED, ids=[f"{a}-{v!r}"[:60] for a, v, _ in REFUSED]
)
def test_is_refused(annotation: Any, value: Any, problem: str) -> None:
    """What would come back as anything else is refused at insert, by its place."""
    for cls in classes_of(annotation):
        with pytest.raises(InvalidArgs, match=problem) as caught:
            encode(cls(value))
        assert "$.x" in str(caught.value)


@pytest.mark.parametrize("name", ["id", "orderID", "user_id", "userId", "order_uuid", "pk"])
def test_asks_whether_a_key_was_flushed(name: str) -> None:
    """None in what looks like a key, or is a number, asks for the flush that was forgotten."""
    body = {"__annotations__": {name: str}, "__module__": __name__}
    cls = attrs.frozen(type("Keyed", (JobArgs,), body, kind="keyed"))
    with pytest.raises(InvalidArgs, match=rf"\$\.{name} is None.*did you flush\?"):
        encode(cls(**{name: None}))


def test_objects_without_equality_are_compared_by_their_fields() -> None:
    """A class that says nothing of equality is kept, and what its equality leaves out may be."""

    @attrs.define(eq=False)
    class Bare(JobArgs, kind="bare"):
        x: Unequal
        y: UUID

    @attrs.define
    class Cached(JobArgs, kind="cached"):
        x: UUID
        cache: int = attrs.field(init=False, default=0, eq=False)

    assert encode(Bare(Unequal(3), U)) == {"x": {"a": 3}, "y": str(U)}
    args = Cached(U)
    args.cache = 5
    assert encode(args) == {"x": str(U)}


def test_what_a_worker_gets_is_not_converted() -> None:
    """JSON that is none of an annotation does not fit: it is not made fit. Whole floats do."""

    @attrs.frozen
    class Got(JobArgs, kind="got"):
        text: str = ""
        flag: bool = False
        number: int = 0
        real: float = 0.0
        many: list[str] = attrs.field(factory=list)
        key: UUID | None = None
        rates: dict[int, float] = attrs.field(factory=dict)

    assert decode("got", {"real": 1, "rates": {"1": 2}, "more": 1}, Got) == Got(
        real=1.0, rates={1: 2.0}
    )
    for wrong in (
        {"text": None},
        {"text": 5},
        {"flag": "false"},
        {"flag": 0},
        {"number": "5"},
        {"number": 1.7},
        {"number": True},
        {"real": "1"},
        {"real": True},
        {"many": "abc"},
        {"many": {"a": 1}},
        {"key": 5},
        {"key": "no uuid"},
        {"rates": {"x": 1}},
        {"rates": {"01": 1}},
        {"rates": [1]},
    ):
        with pytest.raises(UndecodableArgs, match=rf"@ \$\.{next(iter(wrong))}"):
            decode("got", wrong, Got)


# Pydantic


class Aliased(JobArgs, BaseModel, kind="aliased"):
    user_id: int = Field(alias="userId")


class AliasedDefault(JobArgs, BaseModel, kind="aliased"):
    user_id: int = Field(1, alias="userId")


class Generated(JobArgs, BaseModel, kind="aliased"):
    model_config = ConfigDict(alias_generator=str.upper)
    user_id: int = 1


class Strict(JobArgs, BaseModel, kind="strict"):
    model_config = ConfigDict(strict=True)
    at: datetime
    key: UUID
    pair: tuple[int, str]
    some: set[int]
    rest: timedelta
    price: Decimal


class Forbids(JobArgs, BaseModel, kind="forbids"):
    model_config = ConfigDict(extra="forbid")
    x: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.x * 2


class Computes(JobArgs, BaseModel, kind="computes"):
    x: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.x * 2


class Jsons(JobArgs, BaseModel, kind="jsons"):
    anything: pydantic.Json[Any]
    numbers: pydantic.Json[list[int]]


class Excludes(JobArgs, BaseModel, kind="excludes"):
    x: int = Field(0, exclude=True)


class Secret(JobArgs, BaseModel, kind="secret"):
    password: SecretStr


class Revealed(JobArgs, BaseModel, kind="revealed"):
    password: SecretStr

    @pydantic.field_serializer("password", when_used="json")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    n: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    n: int


class Pets(JobArgs, BaseModel, kind="pets"):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Root(JobArgs, RootModel[dict[str, int]], kind="root"):
    pass


class GenericModel(JobArgs, BaseModel, Generic[T], kind="generic"):
    item: T


class Holds(JobArgs, BaseModel, kind="holds"):
    model: Model


class HoldsAny(JobArgs, BaseModel, kind="holds"):
    model: pydantic.SerializeAsAny[Model]


class Anything(JobArgs, BaseModel, kind="anything"):
    model_config = ConfigDict(extra="allow")
    x: Any = None
    _private: int = 0


@pydantic.dataclasses.dataclass
class Pydantics(JobArgs, kind="pydantics"):
    x: int
    key: UUID


@attrs.frozen
class WithModel(JobArgs, kind="with_model"):
    model: Model
    revealed: Revealed


def private(value: int) -> Anything:
    """Return one whose private attribute was set."""
    args = Anything()
    args._private = value
    return args


@pytest.mark.parametrize(
    ("args", "stored"),
    [
        (AliasedDefault(userId=9), None),
        (Aliased(userId=9), None),
        (Generated(USER_ID=9), None),
        (
            Strict(
                at=datetime(2026, 1, 2, tzinfo=UTC),
                key=U,
                pair=(1, "a"),
                some={1},
                rest=timedelta(1),
                price=Decimal("1.5"),
            ),
            None,
        ),
        (Forbids(x=1), {"x": 1}),
        (Computes(x=1), {"x": 1, "double": 2}),
        (Jsons(anything='{"a": 1}', numbers="[1]"), None),
        (Excludes(x=0), {}),
        (Revealed(password="hunter2"), {"password": "hunter2"}),
        (Pets(pet=Dog(n=1)), {"pet": {"kind": "dog", "n": 1}}),
        (Root({"a": 1}), {"a": 1}),
        (GenericModel[UUID](item=U), {"item": str(U)}),
        (GenericModel(item=1), {"item": 1}),
        (Holds(model=Model(a=1)), {"model": {"a": 1}}),
        (Anything(x=[1], more=2), {"x": [1], "more": 2}),
        (private(0), {"x": None}),
        (Pydantics(1, U), {"x": 1, "key": str(U)}),
        (
            WithModel(Model(a=1), Revealed(password="x")),
            {"model": {"a": 1}, "revealed": {"password": "x"}},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pydantic_comes_back(args: Any, stored: Any) -> None:
    """Models come back with aliases, strict, with Json, computed, secret and generic fields."""
    encoded = encode(args)
    assert stored in (None, encoded)
    assert decode("kind", json.loads(json.dumps(encoded)), type(args)) == args


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (Excludes(x=2), r"\$\.x is 2, and its worker would get 0"),
        (Secret(password="hunter2"), r"\$\.password is SecretStr"),
        (Holds(model=SubModel(a=1, b=2)), r"\$\.model is SubModel"),
        (HoldsAny(model=SubModel(a=1, b=2)), r"\$\.model is SubModel"),
        (Holds.model_construct(model=None), r"\$\.model is None"),
        (Aliased.model_construct(user_id=None), "did you flush"),
        (Computes.model_construct(x="5"), r"\$\.x is '5'"),
        (GenericModel(item=U), "UUID"),
        (Anything(x=datetime(2026, 1, 2)), r"\$\.x is"),
        (Anything(x=(1,)), r"\$\.x is \(1,\)"),
        (Anything(more=U), r"\$\.more is UUID"),
        (private(5), r"\$\._private is 5, and its worker would get 0"),
        (WithModel(SubModel(a=1), Revealed(password="x")), r"\$\.model is SubModel"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pydantic_is_refused(args: Any, problem: str) -> None:
    """What a model would not give back is refused: excluded, secret, of a subclass, unchecked."""
    with pytest.raises(InvalidArgs, match=problem) as caught:
        encode(args)
    assert "hunter2" not in str(caught.value)


# Kinds


@pytest.mark.parametrize("name", ["kind", "kind_aliases", "insert_opts"])
def test_refuses_fields_of_the_jobs_own_names(name: str) -> None:
    """A field that would take the place of a job's own attribute is refused with its class."""

    def body(**values: Any) -> dict[str, Any]:
        return {"__annotations__": {name: str}, "__module__": __name__, **values}

    for bases in ((JobArgs,), (JobArgs, BaseModel)):
        with pytest.raises(InvalidOption, match=f"Note.*{name}.*another name"):
            type(bases[-1])("Note", bases, body(), kind="note")
    with pytest.raises(InvalidOption, match=name):
        type("Note", (JobArgs,), body(**{name: attrs.field(default="x")}), kind="note")
    with pytest.raises(InvalidOption, match=name):
        type("Note", (JobArgs,), {name: attrs.field()}, kind="note")


def test_a_kind_is_its_classs_own() -> None:
    """A subclass has the kind it sets, or none; a field named kind elsewhere is not the kind."""

    @attrs.frozen
    class Parent(JobArgs, kind="parent"):
        a: int = 0

    @attrs.frozen
    class Child(Parent):
        b: int = 0

    @attrs.frozen
    class Grown(Parent, kind="grown"):
        b: int = 0

    @attrs.frozen
    class Shaped:
        kind: str = "round"

    assert (kind_of(Parent), kind_of(Parent(1)), kind_of(Grown())) == ("parent", "parent", "grown")
    assert kind_of(GenericModel[int]) == kind_of(GenericModel[int](item=1)) == "generic"
    assert kind_of(RawArgs(kind="raw_one", encoded={})) == "raw_one"
    with pytest.raises(InvalidOption, match=r"class Child\(\.\.\., kind="):
        kind_of(Child())
    with pytest.raises(InvalidOption):
        kind_of(Shaped())


@attrs.frozen
class At(JobArgs, kind="at"):
    at: datetime
    more: dict[str, list[datetime]] = attrs.field(factory=dict)


class AtModel(JobArgs, BaseModel, kind="at_model"):
    at: datetime


@pytest.mark.parametrize(
    "local",
    [
        datetime(2026, 10, 25, 2, 30),
        datetime(2026, 10, 25, 2, 30, fold=1),
        datetime(2026, 3, 29, 2, 30),
    ],
    ids=["first", "second", "skipped"],
)
def test_times_in_an_hour_that_clocks_repeat_or_skip(local: datetime) -> None:
    """They are kept as the same moment, although Python finds them equal to no other zone's."""
    at = local.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    for args in (At(at), At(T0, {"x": [T0, at]}), AtModel(at=at)):
        back = decode(args.kind, encode(args), type(args))
        found = back.more["x"][1] if isinstance(back, At) and back.more else back.at
        assert found.isoformat() == at.isoformat()
    with pytest.raises(InvalidArgs, match=r"\$\.at is .*; expected datetime"):
        encode(At(at.date()))  # type: ignore[arg-type]


@attrs.frozen
class Clock(JobArgs, kind="clock"):
    at: time


def test_a_time_of_day_whose_zone_has_no_offset() -> None:
    """A time of day cannot keep a zone whose offset depends on the day, and is refused."""
    with pytest.raises(InvalidArgs, match=r"\$\.at is datetime.time.*and its worker would get"):
        encode(Clock(time(9, 30, tzinfo=ZoneInfo("Europe/Berlin"))))
    for kept in (time(9, 30), time(9, 30, tzinfo=UTC)):
        assert decode("clock", encode(Clock(kept)), Clock).at == kept


@attrs.frozen
class Number(JobArgs, kind="number"):
    number: int
    more: Any = None


@pytest.mark.parametrize(
    ("args", "path"),
    [
        (Number(10**5000), "number"),
        (Number(1, [{"x": -(10**5000)}]), r"more\[0\]\.x"),
        (RawArgs(kind="number", encoded={"number": 10**5000}), "number"),
    ],
)
def test_an_int_of_more_digits_than_python_writes(args: Any, path: str) -> None:
    """It is refused like all that JSON cannot hold; ints of up to that many digits are kept."""
    with pytest.raises(InvalidArgs, match=rf"\$\.{path} is an int of more than 4,300 digits"):
        encode(args)
    large = Number(10**4299)
    assert decode("number", encode(large), Number) == large

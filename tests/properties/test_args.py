"""Args of any annotation, nested in any other, come back equal or are refused as InvalidArgs."""

import collections
import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, create_model
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from riverrun.errors import InvalidArgs
from riverrun.jobs.args import JobArgs, decode, encode
from riverrun.jobs.json_values import json_problem, json_text, quick_text


class Color(enum.Enum):
    red = "r"
    two = 2


class Word(enum.StrEnum):
    hello = "hello"


class Level(enum.IntEnum):
    low = 1


class Pair(NamedTuple):
    number: int
    text: str


class Typed(TypedDict):
    number: int
    maybe: date | None


@attrs.frozen
class Base:
    number: int


@attrs.frozen
class Sub(Base):
    more: str = ""


@dataclasses.dataclass(frozen=True)
class Data:
    number: int
    key: UUID | None = None


class Model(BaseModel):
    number: int


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(),
    bool: st.booleans(),
    str: st.text(),
    bytes: st.binary(),
    datetime: st.datetimes() | st.datetimes(timezones=st.timezones()),
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False) | st.just(Decimal("nan")),
    Path: st.from_regex(r"[a-z/]{1,9}", fullmatch=True).map(Path),
    Color: st.sampled_from(Color),
    Word: st.sampled_from(Word),
    Level: st.sampled_from(Level),
    Pair: st.builds(Pair, st.integers(), st.text()),
    Typed: st.fixed_dictionaries({"number": st.integers(), "maybe": st.none() | st.dates()}),
    Base: st.builds(Base, st.integers()) | st.builds(Sub, st.integers(), st.text()),
    Data: st.builds(Data, st.integers(), st.none() | st.uuids()),
    Model: st.builds(Model, number=st.integers()),
}
KEYS = [str, int, UUID, Decimal, date, datetime, timedelta, time, Color, Word, Level]
Case = tuple[Any, st.SearchStrategy[Any]]


def nested(cases: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    """Return annotations, and their values, that hold others."""
    return st.one_of(
        cases.map(lambda case: (list[case[0]], st.lists(case[1], max_size=3))),  # type: ignore[name-defined]
        cases.map(lambda case: (Sequence[case[0]], st.lists(case[1], max_size=3))),  # type: ignore[name-defined]
        cases.map(lambda case: (tuple[case[0], ...], st.lists(case[1], max_size=3).map(tuple))),  # type: ignore[name-defined]
        cases.map(
            lambda case: (collections.deque[case[0]], st.lists(case[1]).map(collections.deque))
        ),  # type: ignore[name-defined]
        cases.map(lambda case: (case[0] | None, st.none() | case[1])),
        st.tuples(cases, cases).map(
            lambda both: (tuple[both[0][0], both[1][0]], st.tuples(both[0][1], both[1][1]))  # type: ignore[name-defined]
        ),
        st.tuples(st.sampled_from(KEYS), cases).map(
            lambda both: (
                Mapping[both[0], both[1][0]],  # type: ignore[name-defined]
                st.dictionaries(SCALARS[both[0]], both[1][1], max_size=3),
            )
        ),
        st.tuples(st.sampled_from(KEYS), cases).map(
            lambda both: (
                dict[both[0], both[1][0]],  # type: ignore[name-defined]
                st.dictionaries(SCALARS[both[0]], both[1][1], max_size=3),
            )
        ),
    )


PLAIN = [int, bool, date, time, timedelta, UUID, Color, Word, Level]
CASES = st.recursive(st.sampled_from(list(SCALARS.items())), nested, max_leaves=4)
ANY = st.one_of(*SCALARS.values(), st.none(), st.lists(st.one_of(*SCALARS.values()), max_size=2))
KNOWN: dict[Any, list[Any]] = {}


def classes_of(annotation: Any) -> list[Any]:
    """Return classes with one field `x`, so annotated; made once, as applications make theirs."""
    if annotation not in KNOWN:
        body = {"__annotations__": {"x": annotation}, "__module__": __name__}
        of_attrs = type("A", (JobArgs,), dict(body), kind="of_attrs")
        of_dataclass = type("D", (JobArgs,), dict(body), kind="of_dataclass")
        KNOWN[annotation] = [attrs.frozen(of_attrs), dataclasses.dataclass(of_dataclass)]
        config = ConfigDict(arbitrary_types_allowed=True)
        KNOWN[annotation].append(create_model("P", __config__=config, x=(annotation, ...)))
        KNOWN[annotation][-1].kind = "of_pydantic"
    return KNOWN[annotation]


def stored(args: object) -> Any:
    """Return the JSON that is stored, None if it is refused with the field's name."""
    try:
        return encode(args)
    except InvalidArgs as error:
        named = "$.x" in str(error)
    return None if named else f"not named: {args}"


@settings(max_examples=120)
@given(st.data())
def test_comes_back_or_is_refused(data: st.DataObject) -> None:
    """Whatever is in a field, of its annotation or not: the worker gets it, or it is refused."""
    annotation, values = data.draw(CASES)
    value = data.draw(st.one_of(values, values, ANY))
    for cls in classes_of(annotation):
        made = getattr(cls, "model_construct", cls)
        args = made(x=value)
        if (encoded := stored(args)) is None:
            continue
        back = decode("kind", json.loads(json.dumps(encoded)), cls)
        assert back == args
        assert decode("kind", encoded, cls) == args


@settings(max_examples=60)
@given(st.data())
def test_what_fits_is_kept(data: st.DataObject) -> None:
    """Values of the plain annotations are refused only for what JSON or jsonb cannot hold."""
    annotation = data.draw(
        st.sampled_from([int, bool, date, time, timedelta, UUID, Color, Word, Pair])
    )
    value = data.draw(SCALARS[annotation])
    if annotation is Pair and ("\x00" in value.text or not value.text.isprintable()):
        return
    for cls in classes_of(list[annotation])[:2]:
        encode(cls(x=[value]))


AWKWARD = st.sampled_from(
    ["\x00", "\\u0000", "\ud800", "\udc00 \ud800", '"', "\\", "é", "\U0001f600"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(st.characters(codec=None), max_size=5)
    | st.lists(AWKWARD | st.text(max_size=3), max_size=3).map("".join),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(AWKWARD | st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_text_is_quick_only_where_nothing_is_wrong(value: Any) -> None:
    """The quick way to JSON text gives the text of what jsonb can hold, and of nothing else."""
    text = quick_text(value)
    if json_problem(value):
        assert text is None
    else:
        assert text in (None, json_text(value))
        assert text is not None or "\\u0000" in json_text(value)

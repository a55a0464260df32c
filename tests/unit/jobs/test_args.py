"""Classes of args: what they need, and what an error about stored args names."""

import pickle
from dataclasses import dataclass
from typing import Any

import attrs
import pytest
from pydantic import BaseModel

from riverrun import JobArgs
from riverrun.errors import InvalidOption, UndecodableArgs
from riverrun.jobs.args import decode, encode
from riverrun.logs.traces import place_of


class Bare(JobArgs, kind="bare_args"):
    to: str


@attrs.frozen
class Attrs(JobArgs, kind="attrs_args"):
    to: str
    number: int
    rates: dict[str, int] = attrs.field(factory=dict)


@dataclass
class Data(JobArgs, kind="data_args"):
    to: str
    number: int


class Model(JobArgs, BaseModel, kind="model_args"):
    to: str
    number: int


class Named:
    """A base with a constructor of its own."""

    def __init__(self, name: str) -> None:
        self.name = name


class WithName(JobArgs, Named, kind="named_args"):
    pass


def test_a_class_without_a_constructor_says_what_is_missing() -> None:
    """A class that is not decorated is refused by name where its object is made."""
    with pytest.raises(InvalidOption, match=r"'Bare'.*@attrs\.frozen"):
        Bare(to="a")
    with pytest.raises(InvalidOption, match=r"'Bare'.*@attrs\.frozen"):
        Bare("a")


@pytest.mark.parametrize("cls", [Attrs, Data, Model])
def test_constructors_are_the_classes_own(cls: Any) -> None:
    """Attrs, dataclasses, pydantic and other bases make the objects, as without JobArgs."""
    args = cls(to="a", number=1)
    assert decode(cls.kind, encode(args), cls) == args
    with pytest.raises((TypeError, ValueError)):
        cls(to="a")
    assert Model.__pydantic_custom_init__ is False
    assert WithName("Ada").name == "Ada"


@pytest.mark.parametrize(
    ("cls", "encoded", "place"),
    [
        (Attrs, {"to": 1, "number": "x"}, "fields 'to', 'number'"),
        (Attrs, {"to": "a"}, "field 'number'"),
        (Attrs, {"to": "a", "number": 1, "rates": {"secret": "x"}}, "field 'rates'"),
        (Data, {"to": ["secret"], "number": 1}, "field 'to'"),
        (Model, {"to": "a", "number": "secret"}, "field 'number'"),
        (Model, {}, "fields 'to', 'number'"),
    ],
)
def test_undecodable_args_name_their_fields(cls: Any, encoded: Any, place: str) -> None:
    """The log gets the names of the fields that do not fit, and no key or value of the args."""
    with pytest.raises(UndecodableArgs) as caught:
        decode(cls.kind, encoded, cls)
    assert place_of(caught.value) == place
    assert place_of(pickle.loads(pickle.dumps(caught.value))) == place


def test_undecodable_args_without_fields() -> None:
    """Args that are no object at all name no field."""
    with pytest.raises(UndecodableArgs) as caught:
        decode("attrs_args", [], Attrs)  # type: ignore[arg-type]
    assert place_of(caught.value) == ""

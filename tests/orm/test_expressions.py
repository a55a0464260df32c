"""SQL expressions over jobs: their kinds, and the fields of their args."""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal
from uuid import UUID

import attrs
import pydantic
import pytest
from sqlalchemy import Engine, any_, func, literal, select
from sqlalchemy.orm import Session

from orm.shop import PLACES, Order, Place, SendReceipt, opened
from riverrun import JobArgs, RawArgs
from riverrun.errors import InvalidOption
from riverrun.models import Job


class Colour(Enum):
    """A colour."""

    red = "r"
    blue = "b"


class Level(IntEnum):
    """A level, which is a number."""

    low = 1
    high = 2


@attrs.frozen
class Address:
    """An address, which is nested in args."""

    city: str
    numbers: list[int]


@attrs.frozen
class Everything(JobArgs, kind="everything"):
    """A field of each type."""

    number: int
    ratio: float
    name: str
    flag: bool
    colour: Colour
    level: Level
    size: Literal["s", "m"]
    code: UUID
    at: datetime
    on: date
    amount: Decimal
    wait: timedelta
    address: Address
    more: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Small(JobArgs, kind="small_dataclass"):
    """A dataclass."""

    number: int


class Aliased(pydantic.BaseModel, JobArgs, kind="aliased_model"):
    """A model with aliases for its fields in JSON."""

    model_config = pydantic.ConfigDict(populate_by_name=False)
    order_id: int = pydantic.Field(alias="orderId")
    at: datetime | None = None


def everything(**changes: Any) -> Everything:
    """Return args with defaults for all fields but `changes`."""
    values: dict[str, Any] = {
        "number": 5,
        "ratio": 1.5,
        "name": "Ada 'n' \"Bob\" 100%",
        "flag": True,
        "colour": Colour.red,
        "level": Level.low,
        "size": "s",
        "code": UUID(int=5),
        "at": datetime(2026, 5, 1, 12, tzinfo=UTC),
        "on": date(2026, 5, 1),
        "amount": Decimal("9.90"),
        "wait": timedelta(hours=2),
        "address": Address("Rome", [1, 2]),
        "more": {"a": {"b": [1]}, "x-y": 3},
    }
    return Everything(**{**values, **changes})


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, engine: Engine, schema: str) -> Iterator[Place]:
    """A shop, once with each placement of its jobs."""
    with opened(request.param, engine, schema) as opened_place:
        yield opened_place


FIRST: dict[str, Callable[[Any], Any]] = {
    "int": lambda args: args.number == 5,
    "int, reversed": lambda args: args.number == 5,
    "in": lambda args: args.number.in_([5, 7]),
    "any of a select": lambda args: args.number == any_(select(literal(5)).scalar_subquery()),
    "text, any of a select": lambda args: args.size == any_(select(literal("s")).scalar_subquery()),
    "not in": lambda args: args.number.not_in([6, 7]),
    "differs": lambda args: args.number != 6,
    "less": lambda args: args.number < 6,
    "greater, reversed": lambda args: 6 > args.number,  # noqa: SIM300
    "between": lambda args: args.number.between(1, 5),
    "arithmetic": lambda args: args.number * 2 == 10,
    "float": lambda args: args.ratio == 1.5,
    "less float": lambda args: args.ratio < 2.5,
    "text": lambda args: args.name == "Ada 'n' \"Bob\" 100%",
    "like": lambda args: args.name.like("Ada%"),
    "starts": lambda args: args.name.startswith("Ada"),
    "contains text": lambda args: args.name.contains("Bob"),
    "flag": lambda args: args.flag,
    "flag is": lambda args: args.flag == True,  # noqa: E712
    "flag is true": lambda args: args.flag.is_(True),
    "enum": lambda args: args.colour == Colour.red,
    "enum in": lambda args: args.colour.in_([Colour.red]),
    "IntEnum": lambda args: args.level == Level.low,
    "IntEnum in": lambda args: args.level.in_([Level.low]),
    "less IntEnum": lambda args: args.level < Level.high,
    "greater enum": lambda args: args.colour > Colour.blue,
    "literal": lambda args: args.size == "s",
    "UUID": lambda args: args.code == UUID(int=5),
    "less UUID": lambda args: args.code < UUID(int=6),
    "datetime": lambda args: args.at == datetime(2026, 5, 1, 12, tzinfo=UTC),
    "earlier": lambda args: args.at < datetime(2026, 5, 2, tzinfo=UTC),
    "date": lambda args: args.on == date(2026, 5, 1),
    "earlier date": lambda args: args.on <= date(2026, 5, 1),
    "Decimal": lambda args: args.amount == Decimal("9.90"),
    "less Decimal": lambda args: args.amount < Decimal("10.5"),
    "timedelta": lambda args: args.wait == timedelta(hours=2),
    "less timedelta": lambda args: args.wait < timedelta(hours=3),
    "struct": lambda args: args.address == Address("Rome", [1, 2]),
    "part of a struct": lambda args: args.address["city"] == "Rome",
    "part, like": lambda args: args.address["city"].like("R%"),
    "list": lambda args: args.address["numbers"] == [1, 2],
    "item": lambda args: args.address["numbers"].contains(2),
    "mapping": lambda args: args.more == {"x-y": 3, "a": {"b": [1]}},
    "part of a mapping": lambda args: args.more["x-y"] == 3,
    "deep": lambda args: args.more["a"]["b"] == [1],
}


def test_of_two_jobs_the_right_one_is_found(place: Place) -> None:
    """Each comparison of each type finds the jobs for which it is true, of that kind alone."""
    second = everything(
        number=6,
        ratio=2.5,
        name="Eve",
        flag=False,
        colour=Colour.blue,
        level=Level.high,
        size="m",
        code=UUID(int=6),
        at=datetime(2026, 5, 2, 12, tzinfo=UTC),
        on=date(2026, 5, 2),
        amount=Decimal("19.90"),
        wait=timedelta(hours=20),
        address=Address("Paris", [1]),
        more={"x-y": 4},
    )
    # Values that cannot be cast to the fields' types.
    alien = {field.name: {"an": "object"} for field in attrs.fields(Everything)}
    args = place.job.args_of(Everything)
    with Session(place.engine) as session, session.begin():
        first = place.client.insert(session, everything()).job.id
        place.client.insert(session, second)
        place.client.insert(session, RawArgs(kind="alien_kind", encoded=alien))
        place.client.insert(session, RawArgs(kind="alien_text", encoded={"number": "x", "at": "x"}))
        found = {
            name: session.scalars(select(place.job.id).where(of(args))).all()
            for name, of in FIRST.items()
        }
    assert found == {name: [first] for name in FIRST}


def test_none_is_null_or_not_there(place: Place) -> None:
    """None matches JSON's null and a missing field."""
    args = place.job.args_of(SendReceipt)
    with Session(place.engine) as session, session.begin():
        null = place.client.insert(session, SendReceipt(1)).job.id
        there = place.client.insert(session, SendReceipt(2, to="Ada")).job.id
        absent = place.client.insert(session, RawArgs(kind="mail_receipt", encoded={})).job.id

        def found(criterion: Any) -> list[int]:
            return list(session.scalars(select(place.job.id).where(criterion)))

        assert found(args.to == None) == found(args.to.is_(None)) == [null, absent]  # noqa: E711
        assert found(args.to != None) == found(args.to.is_not(None)) == [there]  # noqa: E711
        assert found(args.to != "Ada") == [null, absent]
        assert found(args.to.in_([])) == []
        assert found(place.job.kind_is(SendReceipt)) == [null, there, absent]


def test_is_selected_and_ordered_by(place: Place) -> None:
    """A field can be selected with its Python type, ordered by and grouped by."""
    args = place.job.args_of(SendReceipt)
    with Session(place.engine) as session, session.begin():
        place.client.insert_many(session, [SendReceipt(n, tags=["a"]) for n in (10, 9, 10**20)])
        rows = session.execute(select(args.order, args.tags).order_by(args.order.desc())).all()
        assert rows == [(10**20, ["a"]), (10, ["a"]), (9, ["a"])]
        assert all(type(row[0]) is int for row in rows)
        assert session.scalar(select(func.max(args.order))) == 10**20
        place.client.insert_many(session, [SendReceipt(9, to=to) for to in ("Ada", "Ada", "Eve")])
        counts = select(args.to, func.count().label("n")).where(args.to.is_not(None))
        counted = counts.group_by(args.to).order_by(args.to)
        assert session.execute(counted).all() == [("Ada", 2), ("Eve", 1)]
        distinct = select(args.to.label("to")).distinct().order_by(args.to)
        assert [row.to for row in session.execute(distinct)] == ["Ada", "Eve", None]


def test_joins_a_column(place: Place) -> None:
    """A field can be compared with a column; the column's value is encoded as args encode it."""
    args = place.job.args_of(SendReceipt)
    with Session(place.engine) as session, session.begin():
        session.add_all([Order(id=1), Order(id=2, status="void")])
        session.flush()
        place.client.insert_many(session, [SendReceipt(n) for n in (1, 2, 2, 3)])
        found = select(Order.id, func.count()).join(place.job, args.order == Order.id)
        assert session.execute(found.group_by(Order.id).order_by(Order.id)).all() == [
            (1, 1),
            (2, 2),
        ]


@pytest.mark.parametrize("args", [Small(5), Aliased(orderId=5)], ids=["dataclass", "pydantic"])
def test_fields_have_their_names_in_json(engine: Engine, schema: str, args: Any) -> None:
    """A field of a dataclass or a model is found by its name in JSON."""
    field = "order_id" if isinstance(args, Aliased) else "number"
    with opened("search path", engine, schema) as place, Session(place.engine) as session:
        place.client.insert(session, args)
        found = session.scalars(select(Job.id).where(Job.args_of(type(args))[field] == 5)).all()
        assert len(found) == 1
        assert not session.scalars(select(Job.id).where(Job.args_of(type(args))[field] == 6)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Job.args_of(SendReceipt).order == "5", "order is '5'.*none of int"),
        (lambda: Job.args_of(SendReceipt).order == None, None),  # noqa: E711
        (lambda: Job.args_of(SendReceipt).order == Order.status, "order.*VARCHAR"),
        (lambda: Job.args_of(SendReceipt).order["x"], "none: .*order"),
        (lambda: Job.args_of(int), "int"),
        (lambda: Job.kind_is(int), "kind"),
        (lambda: Job.kind_is("send_receipt"), "Job.kind == 'send_receipt'"),
    ],
)
def test_what_cannot_be_equal_is_refused(make: Callable[[], Any], message: str | None) -> None:
    """A comparison with a value or column that the field can never equal is an error."""
    if message is None:
        make()
        return
    with pytest.raises(InvalidOption, match=message):
        make()


def test_an_unknown_field_is_named() -> None:
    """An unknown field is an AttributeError that lists the fields that exist."""
    with pytest.raises(AttributeError, match="no field 'ordr'; it has order, to, tags"):
        _ = Job.args_of(SendReceipt).ordr

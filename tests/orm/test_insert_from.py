"""insert_from makes jobs from a select, equal to those that insert_many makes of the values."""

import asyncio
import dataclasses
import enum
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import attrs
import pydantic
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event, make_url, select, true
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from orm.shop import PLACES, Line, Order, Place, SendReceipt, opened
from riverrun import (
    Client,
    InsertOpts,
    JobArgs,
    JobState,
    Plugin,
    Ref,
    UniqueKey,
    UniqueOpts,
    Workers,
)
from riverrun.errors import InvalidArgs, InvalidOption, SchemaMissing, UnknownKind
from riverrun.models import Job
from riverrun.verbs import insert_from, insert_many, list_jobs
from schemas import search_path_options
from verbs.joins import JOINED, commit
from verbs.joins import opened as opened_where

NOW = datetime(2026, 5, 1, 12, 30, 1, 250_000, tzinfo=UTC)


class Base(DeclarativeBase):
    """The base of the application's models."""


class Colour(enum.Enum):
    """A colour that the database stores by its name."""

    red = "r"
    blue = "b<&>"


class Thing(Base):
    """A row with one column for each type that a field may have."""

    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    small: Mapped[int] = mapped_column(sa.SmallInteger)
    big: Mapped[int] = mapped_column(sa.BigInteger)
    name: Mapped[str]
    note: Mapped[str | None] = mapped_column(sa.String(40))
    fixed: Mapped[str] = mapped_column(sa.CHAR(4))
    flag: Mapped[bool]
    code: Mapped[UUID]
    code_text: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False))
    at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    local: Mapped[datetime] = mapped_column(sa.DateTime())
    day: Mapped[date]
    clock: Mapped[time]
    colour: Mapped[Colour]
    size: Mapped[str] = mapped_column(sa.Enum("s", "m", name="thing_size"))
    numbers: Mapped[list[int]] = mapped_column(postgresql.ARRAY(sa.Integer))
    names: Mapped[list[str] | None] = mapped_column(postgresql.ARRAY(sa.Text))
    more: Mapped[dict[str, Any]] = mapped_column(postgresql.JSONB)
    plain: Mapped[list[Any]] = mapped_column(sa.JSON)


@attrs.frozen
class Scalars(JobArgs, kind="scalars"):
    """Scalar fields, which may be part of a unique key. They are declared out of order."""

    small: int
    thing: Ref[Thing]
    name: str
    big: int
    note: str | None
    fixed: str
    flag: bool
    code: UUID
    code_text: str
    at: datetime | None
    local: datetime
    day: date
    clock: time
    colour: Colour
    size: Literal["s", "m", "l"]
    a_default: dict[str, Any] = attrs.field(factory=lambda: {"b": [1, "<é>"], "a": None})
    ratio: float = 1.5


@attrs.frozen
class Containers(JobArgs, kind="containers"):
    """Fields that are stored in jsonb columns."""

    numbers: list[int]
    names: list[str] | None
    more: dict[str, Any]
    plain: list[Any]
    anything: Any


@dataclasses.dataclass(frozen=True)
class Data(JobArgs, kind="data_kind"):
    """Args that are a dataclass."""

    small: int
    note: str | None = None
    tags: list[str] = dataclasses.field(default_factory=lambda: ["x"])


class Model(pydantic.BaseModel, JobArgs, kind="model_kind"):
    """Args that are a pydantic model, with its own format of times and its own names in JSON."""

    model_config = pydantic.ConfigDict(populate_by_name=True)
    name: str = pydantic.Field(alias="theName")
    at: datetime | None
    local: datetime
    day: date
    clock: time
    code: UUID
    colour: Colour
    thing: Ref[Thing]
    later: datetime = datetime(2026, 1, 1, tzinfo=UTC)


def _utc(value: datetime | None) -> datetime | None:
    return value and value.astimezone(UTC)


def _values(thing: Thing, cls: Any) -> Any:
    """Return the args that Python makes of a row."""
    names = _names(cls)
    given = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    given |= {"thing": Ref(thing)} if "thing" in names else {}
    given |= {"anything": thing.more} if "anything" in names else {}
    if "at" in given:
        given["at"] = _utc(given["at"])
    return cls(**given)


def _names(cls: Any) -> list[str]:
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls)]
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return list(cls.model_fields)


def _select(cls: Any) -> Any:
    names = _names(cls)
    columns = [getattr(Thing, name) for name in names if hasattr(Thing, name)]
    columns += [Thing.id.label("thing")] if "thing" in names else []
    columns += [Thing.more.label("anything")] if "anything" in names else []
    return select(*columns).order_by(Thing.id)


@pytest.fixture
def host(engine: Engine, schema: str) -> Iterator[Engine]:
    """The application's engine, with its own session time zone."""
    options = f"{search_path_options(schema)} -c TimeZone=Europe/Berlin"
    host = create_engine(make_url(engine.url).update_query_dict({"options": options}))
    Base.metadata.create_all(host)
    yield host
    host.dispose()


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXTS | st.just(1.5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
THINGS = st.fixed_dictionaries(
    {
        "small": st.integers(-5, 5),
        "big": st.integers(-(2**63), 2**63 - 1),
        "name": TEXTS | st.sampled_from(['"\\/\b\f\n\r\t\x01\x1f\x7f', "<>&\u2028\u2029"]),
        "note": st.none() | TEXTS,
        "fixed": st.sampled_from(["", "ab", "abcd"]),
        "flag": st.booleans(),
        "code": st.uuids(),
        "code_text": st.uuids().map(str),
        "at": st.none() | TIMES.map(lambda at: at.replace(tzinfo=UTC)),
        "local": TIMES,
        "day": st.dates(),
        "clock": st.times(),
        "colour": st.sampled_from(Colour),
        "size": st.sampled_from(["s", "m"]),
        "numbers": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        "names": st.none() | st.lists(TEXTS, max_size=3),
        "more": st.dictionaries(TEXTS, JSON, max_size=3),
        "plain": st.lists(JSON, max_size=3),
    }
)
UNIQUE = st.builds(
    lambda by_args, by_period, by_queue, exclude: UniqueOpts(
        by_args=by_args, by_period=by_period, by_queue=by_queue, exclude_kind=exclude
    ),
    st.sampled_from(
        [True, ["small"], ["size", "flag"], [("thing", "b"), "colour", "thing"], ["at", "note"]]
    ),
    st.sampled_from([None, 60, timedelta(days=1), 1.5]),
    st.booleans(),
    st.booleans(),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.just("mail"),
        "priority": st.integers(1, 4),
        "max_attempts": st.sampled_from([1, 25, 32_767]),
        "tags": st.just(["one", "two"]),
        "metadata": st.just({"x": "é<"}),
        "pending": st.booleans(),
        "scheduled_at": st.just(NOW + timedelta(hours=1)),
    },
)


def _jobs(session: Session) -> list[Any]:
    """Return all jobs, in order and with all columns but their ids, and delete them."""
    columns = [column for column in Job.__table__.c if column.name != "id"]
    order: Any = Job.id
    rows = session.execute(select(*columns).order_by(order)).all()
    session.execute(sa.delete(Job))
    return [tuple(row) for row in rows]


def test_is_what_insert_many_writes(host: Engine) -> None:
    """For any value, insert_from writes the rows, defaults and unique keys of insert_many."""
    compared = 0

    @settings(max_examples=40)
    @given(
        things=st.lists(THINGS, min_size=1, max_size=4),
        cls=st.sampled_from([Scalars, Scalars, Containers, Data, Model]),
        unique=st.none() | UNIQUE,
        options=OPTIONS,
    )
    def compare(things: list[Any], cls: Any, unique: Any, options: dict[str, Any]) -> None:
        nonlocal compared
        if cls is Containers and unique is not None:
            unique = UniqueOpts(by_queue=True)
        if unique is not None and not isinstance(unique.by_args, bool):
            paths = [path for path in unique.by_args if path[0] in _names(cls)]
            unique = attrs.evolve(unique, by_args=paths or True)
        opts = InsertOpts(unique=unique, **options)
        with Session(host, expire_on_commit=False) as session:
            session.add_all([Thing(id=n, **values) for n, values in enumerate(things)])
            session.flush()
            session.expire_all()
            args = [
                _values(thing, cls) for thing in session.scalars(select(Thing).order_by(Thing.id))
            ]
            count = insert_from(session, _select(cls), cls, opts, now=NOW)
            found = _jobs(session)
            insert_many(session, [(each, opts) for each in args], now=NOW)
            expected = _jobs(session)
            assert found == expected
            assert count == len(expected)
            compared += 1

    compare()
    assert compared


def test_periods_of_each_job(host: Engine) -> None:
    """Time and priority may come from columns; a unique period is that of each job's own time."""
    unique = UniqueOpts(by_period=1.5, by_args=["small"])
    times = [None, NOW, NOW + timedelta(seconds=1), NOW - timedelta(days=900_000 % 700_000)]

    @settings(max_examples=15)
    @given(st.lists(st.sampled_from(times) | TIMES.map(lambda at: at.replace(tzinfo=UTC))))
    def compare(moments: list[datetime | None]) -> None:
        rows = sa.values(
            sa.column("small", sa.Integer),
            sa.column("scheduled_at", sa.DateTime(timezone=True)),
            sa.column("priority", sa.Integer),
            name="rows",
        ).data([(n % 3, at, None if at is None else 2) for n, at in enumerate([None, *moments])])
        with Session(host) as session:
            insert_from(session, select(rows), Data, InsertOpts(unique=unique), now=NOW)
            found = _jobs(session)
            jobs = [
                (Data(n % 3), InsertOpts(unique=unique, scheduled_at=at, priority=at and 2))
                for n, at in enumerate([None, *moments])
            ]
            insert_many(session, jobs, now=NOW)
            assert found == _jobs(session)

    compare()


def _fill(place: Place) -> None:
    with Session(place.engine) as session, session.begin():
        session.add_all([Order(id=n, status="void" if n > 3 else "new") for n in range(1, 6)])
        session.add_all([Line(order_id=n, sku="a") for n in range(1, 3)])


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, engine: Engine, schema: str) -> Iterator[Place]:
    """A shop with orders, once with each placement of its jobs."""
    with opened(request.param, engine, schema) as opened_place:
        _fill(opened_place)
        yield opened_place


ORDERS = select(Order.id.label("order"))


@pytest.mark.parametrize("kind", [*JOINED, "engine"])
def test_is_the_callers_transaction(place: Place, kind: str) -> None:
    """The jobs belong to the caller's transaction; with an Engine they have their own."""
    with opened_where(kind, place.engine) as where:
        assert place.client.insert_from(where, ORDERS, SendReceipt) == 5
        if kind in JOINED:
            where.rollback()
            assert not place.client.list_jobs(place.engine).jobs
            assert place.client.insert_from(where, ORDERS.where(Order.id > 3), SendReceipt) == 2
            commit(where)
    jobs = place.client.list_jobs(place.engine).jobs
    assert [job.args["order"] for job in jobs] == ([4, 5] if kind in JOINED else [1, 2, 3, 4, 5])
    assert {job.state for job in jobs} == {JobState.available}


def test_is_one_statement_and_flushes_nothing(place: Place) -> None:
    """One statement is executed for any number of rows, and nothing is flushed."""
    statements: list[str] = []
    with Session(place.engine) as session:
        session.connection()
        place.client.insert(session, SendReceipt(1))  # which queries what the client must know
        event.listen(
            place.engine,
            "before_cursor_execute",
            lambda _c, _cursor, statement, _p, _context, _m: statements.append(statement),
        )
        session.add(Order(id=9))
        assert place.client.insert_from(session, ORDERS, SendReceipt) == 5
        assert session.new
        assert len(statements) == 1


def test_passes_for_a_write(place: Place) -> None:
    """A listener to ORM statements, such as zope.sqlalchemy's, sees an insert."""
    seen: list[bool] = []
    with Session(place.engine) as session:
        event.listen(session, "do_orm_execute", lambda state: seen.append(state.is_insert))
        assert place.client.insert_from(session, ORDERS, SendReceipt) == 5
    assert seen == [True]


def test_duplicates(place: Place) -> None:
    """Of jobs with the same unique key one is inserted, wherever the other one is.

    The other job may be in the table or in the same select.
    """
    unique = UniqueOpts(by_args=True)
    twice = sa.union_all(ORDERS, ORDERS).subquery()
    source = select(twice.c.order)
    with Session(place.engine) as session:
        place.client.insert(session, SendReceipt(1), unique=unique)
        assert place.client.insert_from(session, source, SendReceipt, unique=unique) == 4
        assert place.client.insert_from(session, source, SendReceipt, unique=unique) == 0
        one = UniqueKey("all", by_state=None)
        assert place.client.insert_from(session, source, SendReceipt, unique=one) == 1
        again = place.client.insert(session, SendReceipt(7), unique=one)
        assert again.skipped_as_duplicate


@attrs.frozen
class Pick(JobArgs, kind="pick_line", insert_opts=InsertOpts(queue="picking", max_attempts=3)):
    """Args with a composite reference."""

    line: Ref[Line]
    other: Ref[Line] | None = None


def test_composite_references(place: Place) -> None:
    """A reference with several key columns takes one column for each; the class's options apply."""
    source = select(
        Line.order_id.label("line.order_id"),
        Line.sku.label("line.sku"),
        sa.null().cast(sa.Integer).label("other.order_id"),
        sa.literal("a").label("other.sku"),
    ).order_by(Line.order_id)
    with Session(place.engine) as session:
        assert place.client.insert_from(session, source, Pick, unique=UniqueOpts(by_args=True)) == 2
        expected = [
            place.client.insert(session, Pick(Ref(line)), unique=UniqueOpts(by_args=True))
            for line in session.scalars(select(Line).order_by(Line.order_id))
        ]
        assert [result.skipped_as_duplicate for result in expected] == [True, True]
        job = expected[0].job
        assert (job.args, job.queue, job.max_attempts) == (
            {"line": [1, "a"], "other": None},
            "picking",
            3,
        )


def test_many_fields(place: Place) -> None:
    """A class may have more fields than a PostgreSQL function may have arguments."""
    names = [f"field_{number}" for number in range(130)]
    cls = attrs.make_class("Many", names, bases=(), frozen=True)
    cls.__annotations__ = dict.fromkeys(names, int)
    cls = attrs.frozen(
        type("Many", (JobArgs,), {"__annotations__": cls.__annotations__}, kind="many_fields")
    )
    source = select(*(sa.literal(n).label(name) for n, name in enumerate(names)))
    with Session(place.engine) as session:
        assert place.client.insert_from(session, source, cls) == 1
        (job,) = place.client.list_jobs(session).jobs
        assert job.args == {name: n for n, name in enumerate(names)}


@attrs.frozen
class Odd(JobArgs, kind="odd_args"):
    """Args with fields that insert_from refuses."""

    number: int
    text: str = ""


@attrs.frozen
class Converted(JobArgs, kind="converted_args"):
    """Args whose converter changes the values they are given."""

    number: int = attrs.field(converter=int)
    checked: int = attrs.field(default=1, validator=attrs.validators.gt(0))
    key: str = attrs.field(factory=lambda: str(uuid4()))


@attrs.frozen
class Computing(JobArgs, kind="computing_args"):
    """Args with a post-init."""

    number: int

    def __attrs_post_init__(self) -> None:
        """Do nothing."""


class Limited(pydantic.BaseModel, JobArgs, kind="limited_args"):
    """A model with a constraint."""

    number: int = pydantic.Field(gt=0)


class Validated(pydantic.BaseModel, JobArgs, kind="validated_args"):
    """A model with a validator."""

    number: int

    @pydantic.field_validator("number")
    @classmethod
    def check(cls, value: int) -> int:
        """Accept any value."""
        return value


class Money(sa.TypeDecorator[int]):
    """A type that converts its values in Python."""

    impl = sa.Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Return the converted value."""
        return value


NUMBER = Thing.id.label("number")
REFUSED: dict[str, tuple[Any, Any, str]] = {
    "a missing field": (select(Thing.name.label("text")), Odd, r"'number' \(int\)"),
    "a surplus column": (select(NUMBER, Thing.name), Odd, "no field for the columns 'name'"),
    "no label": (select(NUMBER, sa.func.lower(Thing.name)), Odd, "no field for the columns 'lower"),
    "text for a number": (select(Thing.name.label("number")), Odd, "VARCHAR.*int"),
    "a number for text": (select(NUMBER, Thing.big.label("text")), Odd, r"BIGINT.*cast\(column"),
    "an enum for text": (select(NUMBER, Thing.colour.label("text")), Odd, "text"),
    "NULL": (select(NUMBER, Thing.note.label("text")), Odd, "may be NULL"),
    "a literal NULL": (select(sa.null().label("number")), Odd, "type"),
    "numeric": (select((Thing.id / 2).label("number")), Odd, "NUMERIC"),
    "a float": (select(sa.literal(1.5).label("number")), Odd, r"DOUBLE|FLOAT"),
    "an interval": (select(sa.cast("1 h", sa.Interval).label("number")), Odd, "INTERVAL"),
    "bytes": (select(NUMBER, sa.literal(b"x").label("text")), Odd, "BYTEA"),
    "no type": (select(sa.literal_column("1").label("number")), Odd, "type is not known"),
    "a decorated type": (select(sa.cast(1, Money).label("number")), Odd, "Money"),
    "a union of types": (
        sa.union(select(NUMBER), select(Thing.name.label("number"))),
        Odd,
        "parts of a UNION",
    ),
    "a converter": (select(NUMBER), Converted, "'number' has a converter"),
    "a validator": (select(NUMBER, Thing.small.label("checked")), Converted, "a validator"),
    "a default of each job": (select(NUMBER), Converted, "'key' has a default that differs"),
    "a post-init": (select(NUMBER), Computing, "__attrs_post_init__ cannot run"),
    "a constraint": (select(NUMBER), Limited, "a constraint"),
    "a pydantic validator": (select(NUMBER), Validated, "field_validators"),
    "a reference to another": (
        select(Thing.small, Thing.name.label("thing")),
        Scalars,
        "'thing'.*VARCHAR.*Thing",
    ),
    "JSON of a type": (select(Thing.more.label("numbers")), Containers, "JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_named(host: Engine, name: str) -> None:
    """A column or field that does not fit is refused by name, and no statement is executed."""
    source, cls, message = REFUSED[name]
    statements: list[str] = []
    with Session(host) as session:
        session.connection()
        event.listen(
            host,
            "before_cursor_execute",
            lambda _c, _cursor, statement, _p, _context, _m: statements.append(statement),
        )
        with pytest.raises(InvalidArgs, match=message):
            insert_from(session, source, cls)
    assert not statements


def test_nulls_that_are_not_there_fit(host: Engine) -> None:
    """A nullable column is accepted if the select filters or replaces its NULLs."""
    with Session(host) as session:
        for source in (
            select(NUMBER, Thing.note.label("text")).where(Thing.id > 0, Thing.note.is_not(None)),
            select(NUMBER, sa.func.coalesce(Thing.note, "").label("text")),
        ):
            assert insert_from(session, source, Odd) == 0


BAD_ROWS: dict[str, tuple[Any, Any, str]] = {
    "NULL": (
        select(
            sa.literal(1).label("number"), sa.func.nullif("x", "x", type_=sa.Text).label("text")
        ),
        Odd,
        "'text' is NULL",
    ),
    "infinity": (
        select(
            *(getattr(Thing, name) for name in ("local", "day", "clock", "code", "colour")),
            Thing.name,
            Thing.id.label("thing"),
            sa.cast("infinity", sa.DateTime(timezone=True)).label("at"),
        ),
        Model,
        "a time that Python does not have",
    ),
    "NULL in an array": (
        select(
            sa.cast([1, None], postgresql.ARRAY(sa.Integer)).label("numbers"),
            *(getattr(Thing, name) for name in ("names", "more", "plain")),
            Thing.more.label("anything"),
        ),
        Containers,
        "NULLs",
    ),
    "a list for an object": (
        select(
            Thing.numbers,
            Thing.names,
            sa.cast([1], postgresql.JSONB).label("more"),
            Thing.plain,
            Thing.more.label("anything"),
        ),
        Containers,
        "no object",
    ),
    "large": (
        select(
            sa.literal(1).label("number"),
            sa.func.repeat("x", 5_000_000, type_=sa.Text).label("text"),
        ),
        Odd,
        "4,194,304 bytes",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_what_no_field_holds_is_refused(host: Engine, name: str) -> None:
    """A row's value that args cannot hold is an error, and no job is inserted."""
    source, cls, message = BAD_ROWS[name]
    with Session(host) as session:
        values: dict[str, Any] = {
            "small": 1,
            "big": 1,
            "name": "x",
            "fixed": "x",
            "flag": True,
            "code": UUID(int=1),
            "code_text": str(UUID(int=1)),
            "local": NOW.replace(tzinfo=None),
            "day": NOW.date(),
            "clock": time(1),
            "colour": Colour.red,
            "size": "s",
            "numbers": [1],
            "more": {},
            "plain": [],
        }
        session.add(Thing(id=1, **values))
        session.commit()
        with pytest.raises(InvalidArgs, match=message):
            insert_from(session, source, cls)
        session.rollback()
        assert not list_jobs(session).jobs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unique": UniqueOpts(by_args=True, on_conflict="replace")}, "on_conflict"),
        ({"unique": lambda draft, now: None}, "another policy"),
        ({"queue": "No Queue"}, "queue"),
    ],
)
def test_options_that_rows_cannot_have(host: Engine, options: dict[str, Any], message: str) -> None:
    """Options that have to be computed in Python for each job are refused by name."""
    with Session(host) as session, pytest.raises(InvalidOption, match=message):
        Client(host).insert_from(session, select(NUMBER), Odd, **options)


def test_keys_that_sql_cannot_make(host: Engine) -> None:
    """A unique key that depends on a JSON column is refused by the field's name."""
    for by_args in (True, ["more"], [("more", "x")]):
        opts = InsertOpts(unique=UniqueOpts(by_args=by_args))
        with Session(host) as session, pytest.raises(InvalidOption, match=r"more|numbers|anything"):
            insert_from(session, _select(Containers), Containers, opts)
    source = select(NUMBER, Thing.local.label("scheduled_at"))
    with Session(host) as session, pytest.raises(InvalidOption, match=r"scheduled_at.*cast"):
        insert_from(session, source, Odd)
    source = select(sa.literal(1).label("number"), sa.literal(5).label("priority"))
    with Session(host) as session, pytest.raises(InvalidArgs, match=r"priority.*1 to 4"):
        insert_from(session, source, Odd)


def test_what_is_no_select_is_named(host: Engine) -> None:
    """What is not a select with tables, or not an args class, is refused with a reason."""
    with Session(host) as session:
        with pytest.raises(InvalidOption, match="a select"):
            insert_from(session, Thing, Odd)
        with pytest.raises(InvalidOption, match="class"):
            insert_from(session, select(NUMBER), Odd(1))
        with pytest.raises(SchemaMissing):
            insert_from(session, select(NUMBER), Odd, schema="no_such_schema")


class Counting(Plugin):
    """A plugin that must see each job."""

    def insert_begin(self, draft: Any) -> Any:
        """Return the draft unchanged."""
        return draft


class Marking(Counting):
    """A plugin that supports insert_from."""

    def insert_from(self, draft: Any) -> Any:
        """Mark all jobs of the select."""
        return attrs.evolve(draft.with_metadata({"marked": 1}), queue="marked")


def test_plugins_see_what_the_jobs_have_in_common(place: Place) -> None:
    """A plugin can change what all jobs have in common; one that must see each job refuses."""
    refusing = Client(place.engine, schema=place.client.schema, plugins=[Counting()])
    marking = Client(place.engine, schema=place.client.schema, plugins=[Marking(), Plugin()])
    with Session(place.engine) as session:
        with pytest.raises(InvalidOption, match=r"Counting.*insert_from\(\)"):
            refusing.insert_from(session, ORDERS, SendReceipt)
        assert marking.insert_from(session, ORDERS, SendReceipt, metadata={"own": 2}) == 5
        jobs = marking.list_jobs(session).jobs
        assert {(job.queue, *job.metadata.items()) for job in jobs} == {
            ("marked", ("own", 2), ("marked", 1))
        }


def test_kinds_that_the_client_does_not_work(place: Place) -> None:
    """A client with workers refuses a kind without a worker, as insert does."""
    workers = Workers()

    @workers.register
    def odd(args: Odd) -> None:
        """Do nothing."""

    client = Client(place.engine, schema=place.client.schema, workers=workers)
    with Session(place.engine) as session, pytest.raises(UnknownKind, match="send_receipt"):
        client.insert_from(session, ORDERS, SendReceipt)


def test_from_async_code(place: Place) -> None:
    """insert_from works the same in async sessions and engines, with each async driver."""

    async def main(url: Any) -> None:
        engine = create_async_engine(url)
        async with AsyncSession(engine) as session:
            count = await place.client.insert_from_async(session, ORDERS, SendReceipt, queue="mail")
            assert count == 5
            await session.rollback()
        assert await place.client.insert_from_async(engine, ORDERS, SendReceipt) == 5
        assert await place.client.delete_where_async(engine, true()) == 5
        await engine.dispose()

    asyncio.run(main(place.engine.url))

"""Ref[...] fields of args in SQL criteria and relationships."""

import enum
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar, Literal, TypedDict
from uuid import UUID

import attrs
import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, ForeignKey, create_engine, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, selectinload

from riverrun import Client, JobArgs, Ref, jobs_of
from riverrun.errors import InvalidOption
from riverrun.models import Job
from schemas import search_path_options


class Colour(enum.Enum):
    """A colour."""

    red = "r"


class Upper(sa.TypeDecorator[str]):
    """Text that is upper case in the database and lower case in Python."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Return the value to store."""
        return None if value is None else value.upper()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Return the value that Python sees."""
        return None if value is None else value.lower()


KEYS: dict[str, tuple[Any, Any]] = {
    "int": (sa.Integer(), 5),
    "bigint": (sa.BigInteger(), 2**60),
    "text": (sa.Text(), 'a"<&>\u2028é\\'),
    "varchar": (sa.String(20), "ab"),
    "char": (sa.CHAR(4), "ab  "),
    "uuid": (sa.Uuid(), UUID(int=5)),
    "uuid as text": (sa.Uuid(as_uuid=False), str(UUID(int=5))),
    "uuid as hex": (sa.Uuid(native_uuid=False), UUID(int=5)),
    "date": (sa.Date(), date(2026, 5, 1)),
    "timestamp": (sa.DateTime(), datetime(2026, 5, 1, 12, 0, 0, 500_000)),
    "timestamptz": (sa.DateTime(timezone=True), datetime(2026, 5, 1, 12, tzinfo=UTC)),
    "time": (sa.Time(), time(12, 0, 0, 120)),
    "numeric": (sa.Numeric(), Decimal("1.5")),
    "numeric(10,2)": (sa.Numeric(10, 2), Decimal("1.50")),
    "enum": (sa.Enum(Colour, native_enum=False), Colour.red),
    "decorated": (Upper(), "ab"),
    "bytes": (sa.LargeBinary(), b"\x00\xff"),
}


@pytest.fixture
def host(engine: Engine, schema: str) -> Iterator[Engine]:
    """The application's engine. Its sessions use a time zone of their own."""
    options = f"{search_path_options(schema)} -c TimeZone=Europe/Berlin"
    host = create_engine(make_url(engine.url).update_query_dict({"options": options}))
    yield host
    host.dispose()


@pytest.mark.parametrize("name", KEYS)
def test_each_type_of_key(host: Engine, name: str) -> None:
    """For each type of key, SQL makes the same JSON that a stored reference has."""
    kind, value = KEYS[name]

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "thing"
        id: Mapped[Any] = mapped_column(kind, primary_key=True, autoincrement=False)

    class Part(Base):
        __tablename__ = "part"
        id: Mapped[int] = mapped_column(primary_key=True)
        thing_id: Mapped[Any] = mapped_column(kind)

    @attrs.frozen
    class Use(JobArgs, kind="use_thing"):
        thing: Ref[Thing]

    Thing.uses = jobs_of(Use, "thing")  # type: ignore[attr-defined]
    Base.metadata.create_all(host)
    client, args = Client(host), Job.args_of(Use)
    with Session(host) as session:
        thing = Thing(id=value)
        session.add_all([thing, Part(id=1, thing_id=value)])
        session.flush()
        job_id = client.insert(session, Use(thing)).job.id  # type: ignore[arg-type]

        def found(*criteria: Any) -> list[int]:
            return list(session.scalars(select(Job.id).where(*criteria)))

        assert found(args.thing == thing) == [job_id]
        assert found(args.thing == Ref(thing)) == [job_id]
        assert found(args.thing == value) == [job_id]
        assert found(args.thing.in_([thing])) == [job_id]
        assert found(args.thing != thing) == []
        assert found(args.thing == Thing) == [job_id]
        assert found(args.thing == Part.thing_id) == [job_id]
        session.expire_all()
        assert [job.id for job in thing.uses] == [job_id]  # type: ignore[attr-defined]
        session.expire_all()
        loaded = session.scalars(select(Thing).options(selectinload(Thing.uses))).one()  # type: ignore[attr-defined]
        assert [job.id for job in loaded.uses] == [job_id]  # type: ignore[attr-defined]


class Base(DeclarativeBase):
    """The base of the application's models."""


class Person(Base):
    """The base class of an inheritance hierarchy."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    __mapper_args__: ClassVar[dict[str, Any]] = {
        "polymorphic_on": "type",
        "polymorphic_identity": "person",
    }


class Boss(Person):
    """A subclass with a table of its own."""

    __tablename__ = "boss"
    id: Mapped[int] = mapped_column(ForeignKey(Person.id), primary_key=True)
    car: Mapped[str] = mapped_column(default="")
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "boss"}


class Clerk(Person):
    """A subclass in the table of its base class."""

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "clerk"}


class Seat(Base):
    """A class with a key of two columns."""

    __tablename__ = "seat"
    row: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


class Place(TypedDict):
    """A typed dict with a reference."""

    seat: Ref[Seat]


@attrs.frozen
class Greet(JobArgs, kind="greet_person"):
    """A reference to a base class, and an optional one to a class with two key columns."""

    person: Ref[Person]
    seat: Ref[Seat] | None = None
    others: list[Ref[Seat]] = attrs.field(factory=list)
    at: "Ref[Seat] | Literal['the door']" = "the door"
    by: "Place | None" = None


Person.greetings = jobs_of(Greet, "person")  # type: ignore[attr-defined]
Seat.greetings = jobs_of(Greet, "seat")  # type: ignore[attr-defined]


def test_inheritance_and_composite_keys(host: Engine) -> None:
    """Objects of subclasses, and of classes with composite keys, are found as any others."""
    Base.metadata.create_all(host)
    client, args = Client(host), Job.args_of(Greet)
    with Session(host) as session:
        boss, seat, other = Boss(id=1), Seat(row="a", number=1), Seat(row="a", number=2)
        session.add_all([boss, seat, other])
        session.flush()
        job_id = client.insert(session, Greet(boss, Ref(seat))).job.id  # type: ignore[arg-type]

        def found(*criteria: Any) -> list[int]:
            return list(session.scalars(select(Job.id).where(*criteria)))

        assert found(args.person == boss, args.seat == seat) == [job_id]
        assert found(args.seat == ("a", 1)) == found(args.seat == Seat) == [job_id]
        assert found(args.seat == (Seat.row, Seat.number)) == [job_id]
        assert found(args.seat == other) == found(args.seat == None) == []  # noqa: E711
        assert found(args.person > 0, args.seat.is_not(None)) == [job_id]
        assert [job.id for job in boss.greetings] == [job_id]  # type: ignore[attr-defined]
        assert [len(each.greetings) for each in (seat, other)] == [1, 0]  # type: ignore[attr-defined]
        assert client.cancel_where(session, args.person == Boss, Boss.id == 1) == 1


@pytest.mark.parametrize("schema_of_jobs", [False, True])
def test_criteria_on_a_subclass_choose_its_objects(
    host: Engine, schema: str, schema_of_jobs: bool
) -> None:
    """Criteria over a subclass choose the jobs of its objects, and not those of its base class."""
    Base.metadata.create_all(host)
    client = Client(host, schema=schema if schema_of_jobs else None)
    person, other = Job.args_of(Greet).person, aliased(Boss, flat=True)
    with Session(host) as session:
        people = [Boss(id=1, car="red"), Boss(id=2), Clerk(id=3), Person(id=4)]
        session.add_all(people)
        session.flush()
        client.insert_many(session, [Greet(each) for each in people])  # type: ignore[arg-type]
        for criteria, count in {
            (person == Boss.id, Boss.car == "red"): 1,
            (person == Boss, Boss.car == "red"): 1,
            (person == Boss, Boss.type == "boss"): 2,
            (person == Boss,): 2,
            (person == other, other.car == "red"): 1,
            (person == Clerk,): 1,
            (person == Clerk.id, Clerk.type != ""): 1,
            (person.in_(select(Boss.id).where(Boss.car == "red")), Job.queue == "default"): 1,
        }.items():
            assert client.cancel_where(session, *criteria, dry_run=True) == count
        assert client.delete_where(session, person == Boss.id, Boss.car == "red") == 1


def test_aliases_subqueries_and_lists(host: Engine) -> None:
    """A reference is compared with an alias of its class, and with a subquery of composite keys."""
    Base.metadata.create_all(host)
    client, args = Client(host), Job.args_of(Greet)
    other, seat_of = aliased(Seat), select(Seat.row, Seat.number)
    with Session(host) as session:
        boss, one, two = Boss(id=1), Seat(row="a", number=1), Seat(row="a", number=2)
        session.add_all([boss, one, two])
        session.flush()
        greet = Greet(boss, Ref(one), others=[Ref(one), Ref(two)])  # type: ignore[arg-type]
        job_id = client.insert(session, greet).job.id

        def found(*criteria: Any) -> list[int]:
            return list(session.scalars(select(Job.id).where(*criteria)))

        assert found(args.seat == other, other.number == 1) == [job_id]
        assert found(args.seat == other, other.number == 2) == []
        assert found(args.person == aliased(Person)) == [job_id]
        assert found(args.seat.in_(seat_of)) == found(args.seat.in_(select(Seat))) == [job_id]
        assert found(args.seat.in_(seat_of.where(Seat.number == 2))) == []
        assert found(args.seat.not_in(seat_of.where(Seat.number == 2))) == [job_id]
        assert found(args.seat.in_(seat_of.union_all(seat_of))) == [job_id]
        outside = seat_of.where(Seat.row == other.row).correlate(other)
        assert found(args.seat == other, args.seat.in_(outside)) == [job_id]
        assert found(args.others.contains(Seat), Seat.number == 2) == [job_id]
        assert found(args.others.contains((Seat.row, Seat.number)), Seat.number == 3) == []
        there = Greet(boss, at=Ref(one), by={"seat": Ref(two)})  # type: ignore[arg-type]
        there_id = client.insert(session, there).job.id
        assert found(args.at == one) == found(args.at == Ref(one)) == [there_id]
        assert found(args.at == "the door") == [job_id]
        assert found(args.by["seat"] == two) == found(args.by["seat"] == ("a", 2)) == [there_id]
        with pytest.raises(InvalidOption, match="seat"):
            args.by["row"]
        twin = aliased(Job)
        assert found(twin.args_of(Greet).seat == args.seat, twin.id == job_id) == [job_id]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Job.args_of(Greet).seat.in_(select(Seat.row)), "row, number"),
        (lambda: Job.args_of(Greet).others.contains(Seat.row), "row, number"),
        (lambda: Job.args_of(Greet).person == aliased(Seat), "2|two|columns"),
        (lambda: Job.args_of(Greet).person == Person(), "no session|primary key"),
        (lambda: Job.args_of(Greet).person == Seat(row="a", number=1), "Seat"),
        (lambda: Job.args_of(Greet).person == "5", "an int"),
        (lambda: Job.args_of(Greet).person == Seat, "2|two|columns"),
        (lambda: Job.args_of(Greet).seat == Seat.row, "row, number"),
        (lambda: Job.args_of(Greet).person == Seat.row, "VARCHAR"),
    ],
)
def test_what_has_no_key_or_another(make: Callable[[], Any], message: str) -> None:
    """An object without a key or of another class, or a column of another type, is refused."""
    with pytest.raises(InvalidOption, match=message):
        make()


def test_a_relationship_of_another_class_is_refused() -> None:
    """A relationship over a reference to another class is refused, and the error names both."""

    class Other(DeclarativeBase):
        pass

    class Table(Other):
        __tablename__ = "seat_table"
        id: Mapped[int] = mapped_column(primary_key=True)
        greetings: Mapped[list[Job]] = jobs_of(Greet, "person")

    with pytest.raises(InvalidOption, match=r"Table; it is .*Person"):
        Other.registry.configure()
    Other.registry.dispose()


class Later(DeclarativeBase):
    """The base of models that are defined after the args that refer to them."""


@attrs.frozen
class Remind(JobArgs, kind="remind_later"):
    """A reference to a class that is not defined yet."""

    task: "Ref[Task]"


REMINDED = Job.args_of(Remind)


class Task(Later):
    """A class whose body uses the args that refer to it."""

    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    reminders: Mapped[list[Job]] = jobs_of(Remind, "task")


def test_a_class_that_is_defined_after_the_args(host: Engine) -> None:
    """Args may refer to a class by name, and the body of that class may use the args."""
    Later.metadata.create_all(host)
    with Session(host) as session:
        task = Task(id=1)
        session.add(task)
        session.flush()
        job_id = Client(host).insert(session, Remind(task)).job.id  # type: ignore[arg-type]
        assert [job.id for job in task.reminders] == [job_id]
        assert session.scalars(select(Job.id).where(REMINDED.task == task)).all() == [job_id]

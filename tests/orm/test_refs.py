"""References: their form in JSON, which ones are refused, and which objects they load."""

import asyncio
import copy
import pickle
from dataclasses import dataclass
from typing import Any, ClassVar

import attrs
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy import Engine, ForeignKey, Interval, create_engine, event, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    make_transient_to_detached,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from orm.tables import (
    KEYED,
    KEYS,
    Boss,
    Clerk,
    Invoice,
    Line,
    Order,
    Parcel,
    Person,
    Ticket,
    Token,
)
from riverrun import Client, InsertOpts, JobArgs, ObjectGone, Ref, UniqueOpts
from riverrun.errors import (
    InvalidArgs,
    InvalidOption,
    InvalidRef,
    NotATransaction,
    ObjectLocked,
    UndecodableArgs,
)
from riverrun.jobs.args import decode, encode
from riverrun.models import Job
from riverrun.orm.fields import own_code


@attrs.frozen
class Send(JobArgs, kind="send_receipt"):
    order: Ref[Order]
    copy_to: Ref[Person] | None = None
    lines: list[Ref[Line]] = attrs.Factory(list)
    by_name: dict[str, Ref[Token]] = attrs.Factory(dict)
    counts: dict[Ref[Order], int] = attrs.Factory(dict)


@attrs.define
class Mutable(JobArgs, kind="mutable"):
    order: Ref[Order]


@dataclass
class Data(JobArgs, kind="data"):
    order: Ref[Order]
    copy_to: Ref[Person] | None = None


@dataclass(frozen=True, slots=True)
class Slotted(JobArgs, kind="slotted"):
    order: Ref[Order]


class Model(JobArgs, BaseModel, kind="model"):
    order: Ref[Order]
    copy_to: Ref[Person] | None = None
    lines: list[Ref[Line]] = []


@attrs.frozen
class OwnInit(JobArgs, kind="own_init"):
    order: Ref[Order]
    seen: int = attrs.field(init=False, default=0, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "seen", 1)


ARGS = [Send, Mutable, Data, Slotted, Model]


@pytest.fixture
def session(host: Engine) -> Any:
    """A session on the application's engine."""
    with Session(host) as session:
        yield session


def _order(session: Session) -> Order:
    order = Order()
    session.add(order)
    session.flush()
    return order


@pytest.mark.parametrize("cls", ARGS)
def test_an_object_is_its_key(cls: Any, session: Session) -> None:
    """In attrs, dataclasses and pydantic, an object or its Ref is stored as the object's key."""
    order = _order(session)
    for given in (order, Ref(order), Ref.by_key(Order, order.id)):
        args = cls(order=given)
        encoded = encode(args)
        assert encoded["order"] == order.id
        back = decode("any", encoded, cls)
        assert back == args
        assert back.order.refers_to(order)
        assert back.order.get(session) is order
        assert args.order.get(session) is order


def test_references_in_collections(session: Session) -> None:
    """Lists, dicts, dict keys and optionals may hold references, given as objects or as Refs."""
    order, token, boss = _order(session), Token(), Boss()
    line = Line(order=order, n=3)
    session.add_all([line, token, boss])
    session.flush()
    args = Send(order, boss, [line, Ref(line)], {"a": token}, {Ref(order): 2})
    encoded = encode(args)
    assert encoded == {
        "order": order.id,
        "copy_to": boss.id,
        "lines": [[order.id, 3], [order.id, 3]],
        "by_name": {"a": str(token.id)},
        "counts": {str(order.id): 2},
    }
    back = decode("send_receipt", encoded, Send)
    assert back == args
    assert back.copy_to is not None
    assert back.copy_to.get(session) is boss
    assert back.lines[0].get(session) is line
    model = Model(order=order, lines=[line, Ref(line)])  # type: ignore[arg-type, list-item]
    encoded = encode(model)
    assert encoded["lines"] == [[order.id, 3], [order.id, 3]]
    assert decode("model", encoded, Model) == model
    assert decode("model", encoded, Model).lines[1].get(session) is line


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_each_type(name: str, host: Engine) -> None:
    """A key has the JSON form of its column's type, and its reference finds the object."""
    cls, (_, key, expected) = KEYED[name], KEYS[name]
    with Session(host) as session:
        session.execute(text("SET TIME ZONE 'Europe/Berlin'"))
        session.add(cls(id=key))
        session.commit()
        session.expunge_all()
        loaded = session.scalars(select(cls)).one()
        encoded = Ref.to_json(loaded, Ref[cls])
        assert encoded == expected
        assert type(encoded) is type(expected)
        ref = Ref.from_json(encoded, Ref[cls])
        assert ref == Ref(loaded)
        statements: list[str] = []
        event.listen(host, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert ref.get(session) is loaded
        assert not statements, "the identity map does not know the key"
        session.expunge_all()
        assert ref.get_one(session, with_for_update=True) is not None
        assert pickle.loads(pickle.dumps(ref)) == ref
        session.delete(ref.get_one(session))
        session.commit()


@pytest.mark.parametrize("name", sorted({*KEYS} - {"bare_numeric", "numeric", "aware"}))
def test_json_is_postgresqls(name: str, host: Engine) -> None:
    """A key's JSON equals what PostgreSQL's to_jsonb makes of the column."""
    if name == "bytes":
        pytest.skip("to_jsonb escapes the backslash of bytes")
    cls, (_, key, expected) = KEYED[name], KEYS[name]
    with Session(host) as session:
        session.add(cls(id=key))
        session.flush()  # without a commit
        stored = session.execute(text(f"SELECT to_jsonb(id) FROM by_{name}")).scalar_one()
    assert stored == expected


def test_other_mappings(session: Session) -> None:
    """Dataclass and imperative mappings, and server-made keys, work like any others."""
    objects = [Parcel(), Invoice(), Ticket(), Token()]
    session.add_all(objects)
    session.flush()
    for obj in objects:
        annotation = Ref[type(obj)]  # type: ignore[misc]
        ref = Ref.from_json(Ref.to_json(obj, annotation), annotation)
        assert ref.get_one(session) is obj
        assert ref.refers_to(obj)


def test_a_mapped_dataclass_in_args(session: Session) -> None:
    """A mapped object that is a dataclass is stored as a reference, and not as its fields."""

    @attrs.frozen
    class Ship(JobArgs, kind="ship_parcel"):
        parcel: Ref[Parcel]

    parcel = Parcel()
    session.add(parcel)
    session.flush()
    assert encode(Ship(parcel)) == {"parcel": parcel.id}  # type: ignore[arg-type]


def test_a_post_init_of_its_own(session: Session) -> None:
    """Args whose class defines its own post-init accept objects, too."""
    order = _order(session)
    args = OwnInit(order)
    assert args.seen == 1
    assert encode(args)["order"] == order.id


def test_objects_within_values(session: Session) -> None:
    """A mapped object nested in classes and lists within args is stored as a reference, too."""

    @attrs.frozen
    class Part:
        order: Ref[Order]
        more: list[list[Ref[Order]]] = attrs.Factory(list)

    @attrs.frozen
    class Nested(JobArgs, kind="nested"):
        part: Part

    order = _order(session)
    args = Nested(Part(order, [[order]]))  # type: ignore[arg-type, list-item]
    assert encode(args) == {"part": {"order": order.id, "more": [[order.id]]}}


@pytest.mark.parametrize("cls", ARGS)
def test_what_is_refused(cls: Any, session: Session) -> None:
    """An object of another class, not flushed or in no session, or no object, is refused."""
    token, pending, rolled_back = Token(), Order(), Order()
    session.add(rolled_back)
    session.flush()
    session.rollback()
    session.add_all([token, pending])
    with session.no_autoflush:
        for value, problem in [
            (Order(), "an Order that is in no session"),
            (Order(id=5), "an Order that is in no session"),
            (rolled_back, "an Order that is in no session, or was rolled back"),
            (pending, "did you flush"),
            (token, "a reference to a Token; expected one to an Order"),
            (Ref(token), "a reference to a Token; expected one to an Order"),
            (5, "is 5; expected"),
            (None, "is None; expected"),
            (Order, "Order"),
        ]:
            with pytest.raises((InvalidArgs, ValidationError), match=problem):
                encode(cls(order=value))


@pytest.mark.parametrize("cls", ARGS)
def test_a_key_that_was_changed(cls: Any, session: Session) -> None:
    """An object with another key than its row's is refused until the flush has written it."""
    order = _order(session)
    order.id = 77
    with session.no_autoflush, pytest.raises((InvalidArgs, ValidationError), match="was changed"):
        encode(cls(order=order))
    session.flush()
    assert encode(cls(order=order))["order"] == 77
    order.id = 77
    assert encode(cls(order=order))["order"] == 77
    order.id = 78
    session.expunge(order)
    assert encode(cls(order=order))["order"] == 77, "no flush will write the new key"


def test_inheritance(session: Session) -> None:
    """An object of a subclass fits a reference to its base; a base or a sibling is refused."""

    @attrs.frozen
    class Of(JobArgs, kind="of_boss"):
        boss: Ref[Boss]

    boss, clerk, person = Boss(), Clerk(), Person()
    session.add_all([boss, clerk, person])
    session.flush()
    for each in (boss, clerk, person):
        args = Send(_order(session), each)
        back = decode("send_receipt", encode(args), Send)
        assert back.copy_to is not None
        assert back.copy_to.get(session) is each
        assert back == args
    assert Ref.by_key(Boss, clerk.id).get(session) is None
    for each in (clerk, person):
        with pytest.raises(InvalidArgs, match="expected one to a Boss"):
            encode(Of(each))  # type: ignore[arg-type]
    session.expunge_all()
    locked = Ref.by_key(Boss, boss.id).get_one(session, with_for_update=True)
    assert type(locked) is Boss


def test_concrete_inheritance() -> None:
    """An object of a class with a table of its own is not taken for one of the base's table."""

    class Own(DeclarativeBase):
        pass

    class Car(Own):
        __tablename__ = "cars"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Truck(Car):
        __tablename__ = "trucks"
        id: Mapped[int] = mapped_column(primary_key=True)
        __mapper_args__: ClassVar = {"concrete": True}

    car, truck = Car(id=1), Truck(id=1)
    for each in (car, truck):
        make_transient_to_detached(each)
        assert Ref.to_json(each, Ref[type(each)]) == 1  # type: ignore[misc]
    for refused in (truck, Ref(truck)):
        with pytest.raises(InvalidRef, match="Truck, which has a table of its own"):
            Ref.to_json(refused, Ref[Car])
    assert Ref.is_exact(Ref[Car])(Ref(car))  # type: ignore[misc]
    assert not Ref.is_exact(Ref[Car])(Ref(truck))  # type: ignore[misc]


def test_a_concrete_base(client: Client, session: Session) -> None:
    """A job may refer to an object of a class that is selected from a union of tables."""

    class Own(DeclarativeBase):
        pass

    class Boat(ConcreteBase, Own):
        __tablename__ = "boats"
        id: Mapped[int] = mapped_column(primary_key=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "boat", "concrete": True}

    class Ferry(Boat):
        __tablename__ = "ferries"
        id: Mapped[int] = mapped_column(primary_key=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "ferry", "concrete": True}

    @attrs.frozen
    class Sail(JobArgs, kind="sail"):
        boat: Ref[Boat]

    Own.metadata.create_all(session.connection())
    session.add(boat := Boat())
    session.flush()
    assert client.insert(session, Sail(boat)).job.args == {"boat": boat.id}  # type: ignore[arg-type]


def test_inheritance_without_a_discriminator() -> None:
    """An object of a joined subclass without a polymorphic identity has a row of its base class."""

    class Own(DeclarativeBase):
        pass

    class Car(Own):
        __tablename__ = "cars"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Truck(Car):
        __tablename__ = "trucks"
        car_id: Mapped[int] = mapped_column(ForeignKey("cars.id"), primary_key=True)

    make_transient_to_detached(truck := Truck(id=1))
    for each in (truck, Ref(truck)):
        assert Ref.to_json(each, Ref[Car]) == Ref.to_json(each, Ref[Truck]) == 1
    assert Ref(truck) == Ref.by_key(Car, 1) == Ref.from_json(1, Ref[Car])
    assert hash(Ref(truck)) == hash(Ref.by_key(Car, 1))
    assert Ref.is_exact(Ref[Car])(Ref(truck))  # type: ignore[misc]
    assert Ref.by_key(Truck, 1) != Ref.by_key(Car, 2)


def test_stored_keys_that_do_not_fit() -> None:
    """Stored JSON that is not a key of the class is refused at decoding; the error says where."""
    for key in ("x", None, True, [1], 1.5):
        for cls in ARGS:
            with pytest.raises(UndecodableArgs, match="order"):
                decode("any", {"order": key}, cls)
    with pytest.raises(UndecodableArgs, match="a key of 2 columns"):
        decode("any", {"order": 1, "lines": [[1]]}, Send)


def test_classes_that_cannot_be_referred_to() -> None:
    """A class that is not mapped, or whose key has no JSON form, is refused by name."""

    class Other(DeclarativeBase):
        pass

    class Timed(Other):
        __tablename__ = "timed"
        id: Mapped[Any] = mapped_column(Interval, primary_key=True)

    with pytest.raises(InvalidRef, match=r"Ref\[int\] names no mapped class"):
        Ref.from_json(1, Ref[int])
    with pytest.raises(InvalidRef, match="Ref names no mapped class"):
        Ref.from_json(1, Ref)
    with pytest.raises(InvalidRef, match="Timed has a key of type Interval"):
        Ref.by_key(Timed, 1)
    with pytest.raises(InvalidOption, match="a mapped object"):
        Ref(5)
    with pytest.raises(InvalidOption, match="a mapped class"):
        Ref.by_key(int, 5)
    with pytest.raises(InvalidRef, match="a key of 2 columns, not of 1"):
        Ref.by_key(Line, 5)


def test_reading_a_key_executes_nothing(host: Engine, session: Session) -> None:
    """Referring to an expired object, attached or detached, executes no statement."""
    order = _order(session)
    key = order.id
    session.commit()  # commit expires the object
    statements: list[str] = []
    event.listen(host, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert encode(Send(order))["order"] == key
    session.expunge(order)
    assert encode(Send(order))["order"] == key
    assert repr(Ref(order)) == f"Ref(Order, {key})"
    assert not statements


def test_an_assigned_key(session: Session) -> None:
    """An object in a session that already has its key needs no flush."""
    session.add(order := Order(id=77))
    with session.no_autoflush:
        assert encode(Send(order))["order"] == 77


def test_equality_and_hash(session: Session) -> None:
    """References are equal by class and key, and a flush does not change a hash."""
    one, other = Order(), Order()
    session.add_all([one, other])
    before = Ref(one)
    args, hashed = Slotted(one), hash(Slotted(one))  # type: ignore[arg-type]
    assert before == Ref(one) != Ref(other)
    found = {before: 1}
    session.flush()
    assert hash(args) == hashed
    assert before == Ref.by_key(Order, one.id)
    assert found[Ref.by_key(Order, one.id)] == 1
    assert before != Ref.by_key(Person, one.id)
    assert before != one.id
    assert len({Ref(one), before, Ref.by_key(Order, one.id), Ref(other)}) == 2
    assert copy.deepcopy(args) == args
    assert attrs.evolve(Send(one), order=other).order == Ref(other)


def test_unique_by_a_reference(client: Client, session: Session) -> None:
    """For uniqueness a reference counts as its key, whether given as an object or as a Ref."""
    order, other = _order(session), _order(session)
    for opts in (UniqueOpts(by_args=True), UniqueOpts(by_args=["order"])):
        first = client.insert(session, Send(order), unique=opts)
        again = client.insert(session, Send(Ref.by_key(Order, order.id)), unique=opts)
        third = client.insert(session, Send(other), unique=opts)
        assert again.job.id == first.job.id
        assert third.job.id != first.job.id


def test_pydantic_schema() -> None:
    """In the JSON schema of a pydantic model, a reference is its key."""
    properties = Model.model_json_schema()["properties"]
    assert properties["order"]["type"] == "integer"
    assert TypeAdapter(Ref[Token]).json_schema()["type"] == "string"
    with pytest.raises(ValidationError, match="expected a mapped object"):
        Model(order=5)  # type: ignore[arg-type]


def test_gone(session: Session) -> None:
    """Of a deleted object, get returns None and get_one raises ObjectGone, locked or not."""
    ref = Ref.by_key(Order, 404)
    for lock in (None, True, {"skip_locked": True}):
        assert ref.get(session, with_for_update=lock) is None
        with pytest.raises(ObjectGone, match="no Order with the primary key 404"):
            ref.get_one(session, with_for_update=lock)
    error = pickle.loads(pickle.dumps(ObjectGone("Order", 404)))
    assert str(error) == str(ObjectGone("Order", 404))


def test_locked_is_not_gone(host: Engine, session: Session) -> None:
    """A row that another transaction has locked does not count as deleted."""
    order = _order(session)
    session.commit()
    ref = Ref(order)
    with Session(host) as other:
        assert ref.get_one(other, with_for_update=True).id == order.id
        assert ref.get(session, with_for_update={"skip_locked": True}) is None
        with pytest.raises(ObjectLocked, match="is locked by another transaction"):
            ref.get_one(session, with_for_update={"skip_locked": True})
        with pytest.raises(OperationalError):
            ref.get(session, with_for_update={"nowait": True})


def test_a_lock_reads_anew(host: Engine, session: Session) -> None:
    """Locking an object that is loaded refreshes it from its row."""
    order = _order(session)
    session.commit()
    assert order.status == "new"
    with Session(host) as other, other.begin():
        Ref(order).get_one(other).status = "paid"
    session.expire_on_commit = False
    assert Ref(order).get_one(session, with_for_update=True).status == "paid"


def test_a_lock_keeps_changes(session: Session) -> None:
    """Unflushed changes survive a lock, with autoflush or without."""
    order = _order(session)
    session.commit()
    ref = Ref.by_key(Order, order.id)
    order.status = "sent"
    assert ref.get_one(session, with_for_update=True).status == "sent"
    order.status = "paid"
    with session.no_autoflush:
        assert ref.get_one(session, with_for_update=True).status == "paid"


def test_a_lock_of_a_subclass_is_one_of_its_base(host: Engine, session: Session) -> None:
    """A lock of an object of a joined subclass locks its rows in the tables of its base classes."""
    session.add(boss := Boss())
    session.commit()
    assert Ref(boss).get(session, with_for_update=True) is boss
    row = select(Person.id).where(Person.id == boss.id).with_for_update(skip_locked=True)
    with Session(host) as other:
        assert other.execute(row).first() is None
        assert Ref.by_key(Person, boss.id).get(other, with_for_update={"skip_locked": True}) is None
        with pytest.raises(ObjectLocked):
            Ref.by_key(Boss, boss.id).get_one(other, with_for_update={"skip_locked": True})


def test_a_lock_by_a_base_that_loads_its_subclasses(session: Session) -> None:
    """An object can be locked although its class is always loaded with its subclasses' tables."""

    class Own(DeclarativeBase):
        pass

    class Pet(Own):
        __tablename__ = "pets"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__: ClassVar = {
            "polymorphic_on": "kind",
            "polymorphic_identity": "pet",
            "with_polymorphic": "*",
        }

    class Cat(Pet):
        __tablename__ = "cats"
        id: Mapped[int] = mapped_column(ForeignKey(Pet.id), primary_key=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "cat"}

    class Dog(Pet):
        __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}

    Own.metadata.create_all(session.connection())
    session.add_all([cat := Cat(), dog := Dog()])
    session.flush()
    assert Ref.by_key(Pet, cat.id).get(session, with_for_update=True) is cat
    assert Ref.by_key(Dog, dog.id).get(session, with_for_update=True) is dog
    with pytest.raises(ObjectGone):
        Ref.by_key(Dog, cat.id).get_one(session, with_for_update={"skip_locked": True})


def test_each_lock_is_its_own(host: Engine, session: Session) -> None:
    """PostgreSQL gets the requested lock, with key_share or without, in any order of calls."""
    key = _order(session).id
    session.commit()
    statements: list[str] = []
    event.listen(host, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for how, expected in [
        (True, "FOR UPDATE"),
        ({"key_share": True}, "FOR NO KEY UPDATE"),
        (True, "FOR UPDATE"),
        ({"key_share": True, "skip_locked": True}, "FOR NO KEY UPDATE SKIP LOCKED"),
        ({"skip_locked": True}, "FOR UPDATE SKIP LOCKED"),
        ({"read": True}, "FOR SHARE"),
    ]:
        session.expire_all()
        statements.clear()
        Ref.by_key(Order, key).get(session, with_for_update=how)
        assert statements[0].endswith(expected)


def test_eager_loading_and_locks(session: Session) -> None:
    """An object with relationships loaded by an outer join can be locked."""
    order = _order(session)
    session.add(line := Line(order=order, n=1))
    session.flush()
    key = (order.id, 1)
    session.commit()
    session.expunge_all()
    ref = Ref.by_key(Line, key)
    assert ref.get_one(session, with_for_update=True).n == 1
    assert ref.key == key
    assert ref.refers_to(line)


def test_sessions(client: Client, host: Engine) -> None:
    """A scoped_session is accepted as its session; other objects are refused with advice."""
    registry = scoped_session(sessionmaker(host))
    registry.add(order := Order())
    registry.flush()
    client.insert(registry, Send(order))
    assert Ref(order).get(registry) is order
    assert Ref(order).get_one(registry, with_for_update=True) is order
    with pytest.raises(NotATransaction, match="get_async"):
        Ref(order).get(host)  # type: ignore[arg-type]
    registry.remove()


def test_an_object_before_its_flush(session: Session) -> None:
    """Args made by hand in a test lead to their object before it has a key."""
    session.add(order := Order())
    with session.no_autoflush:
        assert Ref(order).get(session) is order
        assert Ref(order).key is None
        with pytest.raises(InvalidRef, match="did you flush"):
            pickle.dumps(Ref(order))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_sessions(driver: str, host_url: str, mapped_schema: str, client: Client) -> None:
    """An AsyncSession inserts args with objects, and loads and locks the referenced objects."""
    from sqlalchemy import make_url

    url, options = make_url(host_url).set(drivername=f"postgresql+{driver}"), {}
    if driver == "asyncpg":
        url = url.set(query={"host": url.query["host"], "port": url.query["port"]})
        options = {"connect_args": {"server_settings": {"search_path": f"{mapped_schema}"}}}

    async def run() -> None:
        engine = create_async_engine(url, **options)
        async with AsyncSession(engine) as session:
            session.add(order := Order())
            await session.flush()
            job = (await client.insert_async(session, Send(order))).job
            assert job.args["order"] == order.id
            ref = decode(job.kind, job.args, Send).order
            assert await ref.get_async(session) is order
            assert await ref.get_one_async(session, with_for_update=True) is order
            assert await Ref.by_key(Order, 404).get_async(session) is None
            with pytest.raises(ObjectGone):
                await Ref.by_key(Order, 404).get_one_async(session)
            with pytest.raises(NotATransaction, match="get_async"):
                ref.get(session)  # type: ignore[arg-type]
        await engine.dispose()

    asyncio.run(run())


def test_objects_of_another_database(client: Client, host: Engine, empty_database: Engine) -> None:
    """An object of another database is refused; one from another engine of the same one is not."""
    Order.__table__.create(empty_database)  # type: ignore[attr-defined]
    sqlite = create_engine("sqlite://")
    Order.__table__.create(sqlite)  # type: ignore[attr-defined]
    same = create_engine(host.url)
    jobs = Job.__mapper__
    for engine, right in ((empty_database, False), (sqlite, False), (same, True)):
        for session in (Session(engine), Session(binds={Order: engine, jobs: host})):
            with session, Session(host) as own:
                session.add(order := Order())
                session.flush()
                where = session if session.bind is None else own
                if right:
                    client.insert(where, Send(order))
                    client.insert_many(host, [Send(order)])
                    continue
                for insert in (client.insert, lambda w, a: client.insert_many_fast(w, [a])):
                    with pytest.raises(InvalidArgs, match=r"refer to an Order of .*, and the job"):
                        insert(where, Send(order))
    same.dispose()
    sqlite.dispose()


def test_options_stay(client: Client, session: Session) -> None:
    """Args with references accept the options of any other insert."""
    result = client.insert(session, Send(_order(session)), InsertOpts(queue="mail"))
    assert result.job.queue == "mail"


def test_references_do_not_count_as_own_code() -> None:
    """A class with references counts as having no post-init of its own.

    Therefore insert_from accepts it.
    """
    assert own_code(Send) is None
    assert own_code(Data) is None
    assert own_code(OwnInit) == "OwnInit.__attrs_post_init__"

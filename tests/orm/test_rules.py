"""Rules make jobs from changes to objects, in the transaction that commits the changes."""

import dataclasses
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import attrs
import pytest
from sqlalchemy import (
    ARRAY,
    Column,
    Engine,
    Float,
    ForeignKey,
    Integer,
    Table,
    TypeDecorator,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    composite,
    mapped_column,
    registry,
    relationship,
)

from orm.tables import Boss, Clerk, Line, Order, Person
from riverrun import Client, JobArgs, Ref, Rule, RuleBypassed
from riverrun.errors import InvalidOption
from riverrun.models import Job


@attrs.frozen
class Changed(JobArgs, kind="order_changed"):
    order: Ref[Order]
    status: str = ""


@attrs.frozen
class Deleted(JobArgs, kind="row_deleted"):
    id: int
    n: int = 0


@attrs.frozen
class Welcome(JobArgs, kind="welcome_person"):
    person: Ref[Person]


@attrs.frozen
class Moved(JobArgs, kind="line_moved"):
    order: int


@pytest.fixture
def session(host: Engine) -> Iterator[Session]:
    """A session on the application's engine."""
    with Session(host) as session:
        yield session


@pytest.fixture
def client(host: Engine) -> Iterator[Client]:
    """A client whose rules are removed after the test."""
    client = Client(host)
    yield client
    for rule in client.rules:
        rule.remove()


@pytest.fixture
def jobs(host: Engine) -> Callable[[], list[Any]]:
    """Return a function that reads the args of all committed jobs and deletes the jobs."""

    def read() -> list[Any]:
        with Session(host) as other, other.begin():
            found = list(other.scalars(select(Job.args).order_by(Job.id)))
            other.execute(delete(Job))
            return found

    return read


def _changed(order: Order) -> Changed:
    return Changed(order, order.status)  # type: ignore[arg-type]


def _order(session: Session, **values: Any) -> Order:
    session.add(order := Order(**values))
    session.commit()
    return order


def test_inserted(session: Session, client: Client, jobs: Any) -> None:
    """Each new object of a class or its subclasses makes a job in the same transaction."""
    client.on_insert(Person, lambda person: Welcome(person=person))
    people = [Person(), Boss(), Clerk()]
    session.add_all(people)
    session.flush()
    assert session.query(Job).count() == 0
    session.commit()
    assert sorted(each["person"] for each in jobs()) == sorted(each.id for each in people)
    session.add(Person())
    session.rollback()
    session.commit()
    assert jobs() == []


def test_updated(session: Session, client: Client, jobs: Any) -> None:
    """A new value that `when` accepts makes a job, whether or not the old value was loaded."""
    order = _order(session)
    client.on_update(Order.status, _changed, when=lambda new: new == "paid")
    order.status = "paid"  # of an expired object
    session.commit()
    assert jobs() == [{"order": order.id, "status": "paid"}]
    assert order.status == "paid"
    order.status = "sent"
    session.commit()
    order.lines.append(Line(n=1))
    session.commit()
    session.add(Order(status="paid"))
    session.commit()
    assert jobs() == []


def test_one_job_of_many_changes(session: Session, client: Client, jobs: Any) -> None:
    """A transaction's changes to an object make one job of its last state, or none if unchanged."""
    order = _order(session)
    client.on_update(Order.status, _changed)
    assert order.status == "new"
    for status in ("paid", "sent", "done"):
        order.status = status
        session.flush()
    session.commit()
    assert [each["status"] for each in jobs()] == ["done"]
    assert order.status == "done"
    for status in ("paid", "done"):
        order.status = status
        session.flush()
    session.commit()
    order.status = order.status
    session.commit()
    assert jobs() == []


def test_decided_at_commit(session: Session, client: Client, jobs: Any) -> None:
    """The committed value decides, not any value before it."""
    order = _order(session)
    client.on_update(Order.status, _changed, when=lambda new: new == "paid")
    order.status = "paid"
    session.flush()
    order.status = "void"
    session.commit()
    assert jobs() == []


def test_savepoints(session: Session, client: Client, jobs: Any) -> None:
    """A change rolled back with its savepoint makes no job; one that was released does."""
    client.on_update(Order.status, _changed)
    one, other, third = _order(session), _order(session), _order(session)
    one.status = "paid"
    savepoint = session.begin_nested()
    other.status = "paid"
    session.flush()
    savepoint.rollback()
    with session.begin_nested(), session.begin_nested():
        third.status = "paid"
    session.commit()
    assert [each["order"] for each in jobs()] == [one.id, third.id]


def test_a_commit_that_fails(session: Session, client: Client, jobs: Any) -> None:
    """A failed commit makes no job, and the next transaction decides at its own commit."""
    order = _order(session)
    calls: list[str] = []

    def make(given: Order) -> Changed | None:
        calls.append(given.status)
        if given.status == "bad":
            raise RuntimeError("no")
        return _changed(given)

    client.on_update(Order.status, make)
    order.status = "bad"
    with pytest.raises(RuntimeError):
        session.commit()
    session.rollback()
    assert order.status == "new"
    order.status = "paid"
    session.flush()
    assert calls == ["bad"]
    session.rollback()
    session.commit()
    assert jobs() == []


def test_a_foreign_key_by_its_relationship(session: Session, client: Client, jobs: Any) -> None:
    """A foreign key set by a relationship counts as a change of the column and the relationship."""
    session.add(person := Person())
    one, other = _order(session), _order(session)
    client.on_update(Line.order_id, lambda line: Moved(line.order_id))
    client.on_update(Line.order, lambda line: Moved(-line.order_id))
    session.add(line := Line(order=one, n=1))
    session.commit()
    assert jobs() == []
    line.order = other
    session.commit()
    assert sorted(each["order"] for each in jobs()) == sorted([other.id, -other.id])
    assert person


class Vector:
    """A value like an array of numbers: what `==` returns is no bool."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return Vector()

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array is ambiguous")


class OfVector(TypeDecorator[Vector]):
    """A column of vectors."""

    impl = ARRAY(Float)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> Any:
        return None if value is None else value.numbers

    def process_result_value(self, value: Any, dialect: object) -> Any:
        return None if value is None else Vector(*value)


@dataclasses.dataclass(frozen=True)
class Point:
    """A value of two columns."""

    x: int
    y: int


class DocBase(DeclarativeBase):
    """The base of the classes with unusual attributes."""


class Doc(DocBase):
    """A class with a vector, a point and a collection."""

    __tablename__ = "docs_of_rules"
    id: Mapped[int] = mapped_column(primary_key=True)
    vector: Mapped[Any] = mapped_column(OfVector, default=lambda: Vector(1, 2))
    other: Mapped[int] = mapped_column(default=0)
    x: Mapped[int]
    y: Mapped[int]
    point: Mapped[Point] = composite("x", "y")
    parts: Mapped[list["Part"]] = relationship(back_populates="doc")


class Part(DocBase):
    """A part of a Doc."""

    __tablename__ = "parts_of_rules"
    id: Mapped[int] = mapped_column(primary_key=True)
    doc_id: Mapped[int] = mapped_column(ForeignKey(Doc.id))
    doc: Mapped[Doc] = relationship(back_populates="parts")


@attrs.frozen
class DocChanged(JobArgs, kind="doc_changed"):
    doc: int


@pytest.fixture
def doc(host: Engine, session: Session) -> Doc:
    """A Doc that is committed, and whose columns are loaded."""
    DocBase.metadata.create_all(host)
    session.add(doc := Doc(point=Point(1, 2)))
    session.commit()
    session.refresh(doc)
    return doc


def test_a_value_without_a_plain_equality(
    doc: Doc, session: Session, client: Client, jobs: Any
) -> None:
    """A value whose `==` is no bool, as of an array, counts as changed, as it does for a flush."""
    client.on_update(Doc.vector, lambda doc: DocChanged(doc.id))
    doc.other = 1
    session.commit()
    assert jobs() == []
    session.refresh(doc)
    doc.vector = Vector(3)
    session.commit()
    assert jobs() == [{"doc": doc.id}]


def test_a_composite_attribute(doc: Doc, session: Session, client: Client, jobs: Any) -> None:
    """A composite attribute changes by itself or by a column; a bulk update of one bypasses it."""
    client.on_update(Doc.point, lambda doc: DocChanged(doc.id), strict=True)
    for point in (Point(1, 2), Point(3, 4)):
        doc.point = point
        session.commit()
        session.refresh(doc)
    assert jobs() == [{"doc": doc.id}]
    changes: list[dict[Any, Any]] = [{Doc.point: Point(5, 6)}, {"x": 5}, {"point": Point(5, 6)}]
    for values in changes:
        with pytest.raises(RuleBypassed):
            session.execute(update(Doc).values(values))
    session.execute(update(Doc).values(other=1))


def test_a_collection(doc: Doc, session: Session, client: Client, jobs: Any) -> None:
    """A collection changes when its other side is set, loaded or not; no update bypasses it."""
    client.on_update(Doc.parts, lambda doc: DocChanged(doc.id), strict=True)
    client.on_update(Part.doc, lambda part: DocChanged(-part.doc_id), strict=True)
    session.add(Part(doc=doc))
    session.commit()
    assert jobs() == [{"doc": doc.id}]
    assert len(doc.parts) == 1
    session.add(Part(doc=doc))
    session.commit()
    assert jobs() == [{"doc": doc.id}]
    session.execute(update(Doc).values(other=1))
    session.execute(update(Part).values(id=Part.id))
    with pytest.raises(RuleBypassed, match=r"Part\.doc"):
        session.execute(update(Part).values(doc_id=doc.id))


def test_deleted(session: Session, client: Client, jobs: Any) -> None:
    """A delete makes a job of the object's values, expired or not; a rollback makes none."""
    client.on_delete(Order, lambda order: Deleted(order.id, len(order.status)))
    order = _order(session)
    key = order.id
    session.commit()
    session.delete(order)
    session.rollback()
    session.delete(order)
    session.commit()
    assert jobs() == [{"id": key, "n": 3}]


def test_orphans(session: Session, client: Client, jobs: Any) -> None:
    """An orphan that is deleted counts as a deleted object."""
    order = Order(lines=[Line(n=1), Line(n=2)])
    session.add(order)
    session.commit()
    client.on_delete(Line, lambda line: Deleted(line.order_id, line.n))
    order.lines.pop()
    session.commit()
    assert jobs() == [{"id": order.id, "n": 2}]


def test_a_row_switch(session: Session, client: Client, jobs: Any) -> None:
    """If a flush replaces a deleted object by a new one with its key, that counts as an update."""
    order = _order(session)
    key = order.id
    client.on_delete(Order, lambda order: Deleted(order.id))
    client.on_insert(Order, _changed)
    client.on_update(Order.status, lambda order: Changed(order, "updated"))
    session.delete(order)
    session.add(Order(id=key, status="again"))
    session.commit()
    assert jobs() == [{"order": key, "status": "updated"}]


def test_inserted_and_deleted(session: Session, client: Client, jobs: Any) -> None:
    """An object inserted and deleted in the same transaction makes no job."""
    client.on_insert(Order, _changed)
    client.on_delete(Order, lambda order: Deleted(order.id))
    session.add(order := Order())
    session.flush()
    session.delete(order)
    session.commit()
    assert jobs() == []


def test_updated_and_deleted(session: Session, client: Client, jobs: Any) -> None:
    """If an object is updated and then deleted, only the delete makes a job."""
    order = _order(session)
    client.on_update(Order.status, _changed)
    client.on_delete(Order, lambda order: Deleted(order.id))
    key = order.id
    order.status = "paid"
    session.flush()
    session.delete(order)
    session.commit()
    assert jobs() == [{"id": key, "n": 0}]


def test_an_sql_expression(session: Session, client: Client, jobs: Any) -> None:
    """A job gets the value that the database computed for an SQL expression."""
    order = _order(session)
    client.on_update(Order.status, _changed, when=lambda new: new == "newer")
    order.status = Order.status + "er"
    session.commit()
    assert jobs() == [{"order": order.id, "status": "newer"}]


def test_changes_by_the_hosts_listeners(session: Session, client: Client, jobs: Any) -> None:
    """A change that a listener of the application makes during the commit counts, too."""
    one, other = _order(session), _order(session)
    client.on_update(Order.status, _changed)

    def pay(given: Session) -> None:
        one.status = "paid"

    def pay_later(given: Session, *_: object) -> None:
        if one not in given.dirty:  # in the second flush of the commit
            other.status = "paid"

    event.listen(session, "before_commit", pay)
    event.listen(session, "before_flush", pay_later)
    session.commit()
    assert [each["order"] for each in jobs()] == [one.id, other.id]


def test_an_orphan_alone(session: Session, client: Client, jobs: Any) -> None:
    """A change is noticed even if nothing but a pending orphan is left to flush."""
    order = _order(session)
    client.on_update(Order.status, _changed)
    order.status = "paid"
    session.flush()
    line = Line(n=1)
    order.lines.append(line)
    order.lines.remove(line)
    session.commit()
    assert [each["order"] for each in jobs()] == [order.id]


def test_no_job(session: Session, client: Client, jobs: Any) -> None:
    """A function that returns None makes no job; a job that cannot be inserted fails the commit."""
    client.on_insert(Order, lambda order: None)
    session.add(Order())
    session.commit()
    rule = client.on_insert(Order, lambda order: "order")
    session.add(Order())
    with pytest.raises(InvalidOption):
        session.commit()
    session.rollback()
    rule.remove()
    assert jobs() == []


def test_rules_are_listed_and_removed(host: Engine, session: Session, jobs: Any) -> None:
    """A rule belongs to its client: it is listed, removed and garbage-collected with it."""
    one, other = Client(host), Client(host, notify="off")  # a thread would keep it alive
    rule: Rule[Any] = one.on_update(Order.status, _changed)
    other.on_update(Order.status, lambda order: Changed(order, "other"))
    assert list(one.rules) == [rule]
    assert repr(rule) == "<Rule on_update(Order.status)>"
    order = _order(session)
    order.status = "paid"
    session.commit()
    assert len(jobs()) == 2
    order.status = "sent"
    session.flush()
    rule.remove()
    rule.remove()
    assert not list(one.rules)
    session.commit()
    assert [each["status"] for each in jobs()] == ["other"]
    del other
    gc.collect()
    order.status = "done"
    session.commit()
    assert jobs() == []


def test_a_rule_that_ends_within_a_flush(session: Session, client: Client, jobs: Any) -> None:
    """A rule's function may remove its rule, and make others, within the flush that calls it."""
    orders = [_order(session), _order(session)]

    def once(order: Order) -> Deleted:
        rule.remove()
        client.on_delete(Order, lambda order: Deleted(order.id, 2))
        return Deleted(order.id, 1)

    rule = client.on_delete(Order, once)
    for order in orders:
        session.delete(order)
        session.flush()
    session.commit()
    assert jobs() == [{"id": orders[1].id, "n": 2}]


def test_a_class_that_is_mapped_anew(session: Session, client: Client, jobs: Any) -> None:
    """A rule counts for the mapping that its class has when the rule is made."""

    class Thing:
        pass

    for name in ("things", "other_things"):
        mapping = registry()
        table = Table(name, mapping.metadata, Column("id", Integer, primary_key=True))
        mapping.map_imperatively(Thing, table)
        mapping.metadata.create_all(session.connection())
        rule = client.on_insert(Thing, lambda thing: Deleted(thing.id))  # type: ignore[attr-defined]
        session.add(Thing())
        session.commit()
        assert jobs() == [{"id": 1, "n": 0}]
        rule.remove()
        session.expunge_all()
        mapping.dispose()


def test_what_is_no_rule(client: Client) -> None:
    """Anything but a mapped class, an attribute and a function is refused by name."""
    for make in (
        lambda: client.on_insert(int, lambda n: None),
        lambda: client.on_delete(Order, None),  # type: ignore[arg-type]
        lambda: client.on_update(Order, _changed),  # type: ignore[arg-type]
        lambda: client.on_update(Order.status, _changed, when="paid"),  # type: ignore[arg-type]
        lambda: client.on_update(aliased(Order).status, _changed),
        lambda: client.on_insert(Order, _changed, opts={"queue": "x"}),  # type: ignore[arg-type]
        lambda: client.on_insert(Order, _changed, strict="no"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidOption):
            make()
    assert not list(client.rules)


def test_attributes_that_are_not_assigned(client: Client) -> None:
    """An attribute whose changes no flush shows is refused: its rule would make no job, ever."""

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs_with_a_version"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column()
        version: Mapped[int] = mapped_column()
        length = column_property(func.length(title))

        @hybrid_property
        def headline(self) -> str:
            return self.title

        __mapper_args__: ClassVar = {"version_id_col": version}

    for attribute in (Doc.version, Doc.length, Doc.headline):
        with pytest.raises(InvalidOption, match="no flush shows"):
            client.on_update(attribute, lambda doc: None)
    client.on_update(Doc.title, lambda doc: None)


BULK: dict[str, tuple[str, Callable[[], Any]]] = {
    "update": ("update", lambda: update(Order).values(status="x").where(Order.id < 0)),
    "update by key": ("update", lambda: update(Order)),
    "core update": (
        "update",
        lambda: update(Order.__table__).values(status="x").where(Order.id < 0),  # type: ignore[arg-type]
    ),
    "delete": ("delete", lambda: delete(Order).where(Order.id < 0)),
    "insert": ("insert", lambda: insert(Order).values(status="x")),
    "upsert": ("insert", lambda: upsert(Order).values(id=1).on_conflict_do_nothing()),
}


@pytest.mark.parametrize("name", BULK)
def test_bulk_statements(name: str, session: Session, client: Client) -> None:
    """A bulk statement warns once of the rule that it bypasses; a strict rule refuses it."""
    on, make = BULK[name]
    key = _order(session).id
    params: Any = [{"id": key, "status": "x"}] if name == "update by key" else None

    def rule(strict: bool) -> Rule[Any]:
        if on == "update":
            return client.on_update(Order.status, _changed, strict=strict)
        register: Any = getattr(client, f"on_{on}")
        return register(Order, _changed, strict=strict)  # type: ignore[no-any-return]

    warning = rule(False)
    with pytest.warns(RuleBypassed, match=rf"a bulk {on} bypasses <Rule on_{on}\(Order"):
        session.execute(make(), params)
    session.execute(make(), params)
    warning.remove()
    rule(True)
    with pytest.raises(RuleBypassed):
        session.execute(make(), params)
    session.rollback()


def test_statements_that_bypass_nothing(session: Session, client: Client) -> None:
    """Reads, and statements on other classes or columns, cause no warning."""
    client.on_update(Order.status, _changed, strict=True)
    client.on_insert(Boss, lambda boss: Welcome(boss), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuleBypassed)
        session.execute(update(Order).values(id=Order.id).where(Order.id < 0))
        session.execute(update(Order).ordered_values((Order.id, Order.id)).where(Order.id < 0))
        session.execute(delete(Order).where(Order.id < 0))
        session.execute(update(Line).values(n=1).where(Line.n < 0))
        session.execute(insert(Clerk).values(type="clerk"))
        session.execute(select(Order))
        session.execute(text("SELECT 1"))
        session.query(Order).filter(Order.id < 0).all()
        client.insert(session, Deleted(1))
    with pytest.raises(RuleBypassed):
        session.query(Order).filter(Order.id < 0).update({"status": "x"})
    session.rollback()


def test_inserts_keep_their_fast_way(session: Session, client: Client) -> None:
    """A rule does not turn other inserts into ORM statements, as a listener does."""
    client.on_update(Order.status, _changed)
    seen: list[object] = []

    class Seeing(Session):
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return super().execute(*args, **kwargs)

    with Seeing(session.bind) as own:
        client.insert(own, Deleted(1))
        assert not seen
        event.listen(own, "do_orm_execute", lambda state: None)
        client.insert(own, Deleted(1))
        assert len(seen) == 1


def test_an_async_session(client: Client, host_url: str, jobs: Any) -> None:
    """Changes in an AsyncSession make jobs, too."""
    import asyncio

    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    client.on_update(Order.status, _changed)

    async def run() -> int:
        engine = create_async_engine(host_url)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            session.add(order := Order())
            await session.commit()
            order.status = "paid"
            await session.commit()
        await engine.dispose()
        return order.id

    key = asyncio.run(run())
    assert jobs() == [{"order": key, "status": "paid"}]

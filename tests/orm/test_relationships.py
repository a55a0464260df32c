"""Relationships to jobs: what they load, with how many statements and by which index."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    configure_mappers,
    joinedload,
    mapped_column,
    raiseload,
    selectinload,
    subqueryload,
)

from orm.shop import PLACES, Line, Order, PackLine, Place, SendReceipt, opened
from riverrun import JobState, RawArgs
from riverrun.errors import InvalidOption
from riverrun.models import Job
from riverrun.orm.relationships import jobs_of

JOBS = 1_000_000 if os.environ.get("RIVERRUN_FAULTS") == "long" else 100_000


@pytest.fixture
def place(engine: Engine, schema: str) -> Iterator[Place]:
    """A shop with its jobs on its search path."""
    with opened("search path", engine, schema) as opened_place:
        yield opened_place


def _statements(engine: Engine, statements: list[str]) -> None:
    event.listen(
        engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, _p, _context, _m: statements.append(statement),
    )


LOADERS = {"lazy": None, "selectin": selectinload, "joined": joinedload, "subquery": subqueryload}


@pytest.mark.parametrize("loader", LOADERS)
def test_loads_what_names_the_object(place: Place, loader: str) -> None:
    """With each loader strategy an object has the jobs that refer to it, aliases too, by id."""
    with Session(place.engine) as session:
        session.add_all([Order(id=n) for n in (1, 2, 3)])
        session.flush()
        place.client.insert_many(
            session, [SendReceipt(n, to=str(i)) for i, n in enumerate((2, 1, 2))]
        )
        place.client.insert(session, RawArgs(kind="mail_receipt", encoded={"order": 1}))
        place.client.insert(session, RawArgs(kind="other_kind", encoded={"order": 1}))
        place.client.insert(session, RawArgs(kind="send_receipt", encoded={"to": 1, "order": "1"}))
        session.expire_all()
        found = select(Order).order_by(Order.id)
        option: Any = LOADERS[loader]
        if option is not None:
            found = found.options(option(Order.receipts))
        orders = session.scalars(found).unique().all()
        assert [[job.args.get("to", "-") for job in order.receipts] for order in orders] == [
            ["1", "-"],
            ["0", "2"],
            [],
        ]
        ids = [job.id for order in orders for job in order.receipts]
        assert ids == [ids[0], ids[1], *sorted(ids[2:])]


def test_does_not_load_one_by_one(place: Place) -> None:
    """`selectinload` executes two statements for any number of objects."""
    statements: list[str] = []
    with Session(place.engine) as session:
        session.add_all([Order(id=n) for n in range(1, 51)])
        session.flush()
        place.client.insert_many(session, [SendReceipt(n) for n in range(1, 51)])
        session.commit()
        assert place.client.flush_announcements(20.0)
        _statements(place.engine, statements)
        orders = session.scalars(select(Order).options(selectinload(Order.receipts))).all()
        assert [len(order.receipts) for order in orders] == [1] * 50
    assert len(statements) == 2


def test_composite_keys(place: Place) -> None:
    """A composite key is an array; a relationship may be added after a class is defined."""
    with Session(place.engine) as session:
        session.add_all([Line(order_id=1, sku="a"), Line(order_id=1, sku="b")])
        session.flush()
        place.client.insert_many(
            session, [PackLine([1, "a"]), PackLine([2, "a"]), PackLine(["a", 1])]
        )
        lines = session.scalars(
            select(Line).order_by(Line.sku).options(selectinload(Line.jobs))  # type: ignore[attr-defined]
        ).all()
        assert [[job.args["line"] for job in line.jobs] for line in lines] == [[[1, "a"]], []]  # type: ignore[attr-defined]
        session.expire_all()
        assert [len(line.jobs) for line in lines] == [1, 0]  # type: ignore[attr-defined]


def test_any_and_has(place: Place) -> None:
    """any() and its negation filter by a job's state and by other fields of its args."""
    with Session(place.engine) as session:
        session.add_all([Order(id=n) for n in (1, 2, 3)])
        session.flush()
        place.client.insert(session, SendReceipt(1, to="Ada"))
        second = place.client.insert(session, SendReceipt(2, to="Bob")).job.id
        place.client.cancel(session, second)

        def found(criterion: Any) -> list[int]:
            return list(session.scalars(select(Order.id).where(criterion).order_by(Order.id)))

        assert found(Order.receipts.any()) == [1, 2]
        assert found(~Order.receipts.any()) == [3]
        assert found(Order.receipts.any(Job.state == JobState.cancelled)) == [2]
        assert found(Order.receipts.any(Job.args_of(SendReceipt).to == "Ada")) == [1]


def test_in_a_schema_of_its_own(engine: Engine, schema: str) -> None:
    """With `schema` the jobs of that schema are loaded; the application's tables are unaffected."""

    class Base(DeclarativeBase):
        pass

    class Invoice(Base):
        __tablename__ = "shop_order"
        id: Mapped[int] = mapped_column(primary_key=True)
        receipts: Mapped[list[Job]] = jobs_of(
            SendReceipt, "order", schema=str(schema), lazy="selectin"
        )

    with opened(PLACES[1], engine, schema) as place, Session(place.engine) as session:
        session.add_all([Order(id=1), Order(id=2)])
        session.flush()
        place.client.insert_many(session, [SendReceipt(1), SendReceipt(1)])
        invoice = session.get_one(Invoice, 1)
        assert [type(job) for job in invoice.receipts] == [place.job] * 2
        assert isinstance(invoice.receipts[0], Job)
        job = Job.in_schema(str(schema))
        due = select(Invoice.id).where(Invoice.receipts.any(job.state == JobState.available))
        assert session.scalars(due).all() == [1]


def test_is_view_only(place: Place) -> None:
    """The relationship is view-only, and accepts relationship()'s other options."""
    with Session(place.engine) as session:
        session.add(Order(id=1, receipts=[Job(kind="send_receipt", args={"order": 1})]))
        session.commit()
        assert session.get_one(Order, 1).receipts == []
        session.expire_all()
        order = session.scalars(select(Order).options(raiseload(Order.receipts))).one()
        with pytest.raises(InvalidRequestError, match="raise"):
            _ = order.receipts


def test_what_does_not_fit_is_refused() -> None:
    """An unknown field, or a field that does not hold the key, is refused with a reason."""
    with pytest.raises(InvalidOption, match=r"ordr.*order, to, tags"):
        jobs_of(SendReceipt, "ordr")
    with pytest.raises(InvalidOption, match="class of args"):
        jobs_of(int, "order")

    class Base(DeclarativeBase):
        pass

    class Token(Base):
        __tablename__ = "token"
        id: Mapped[str] = mapped_column(primary_key=True)
        receipts: Mapped[list[Job]] = jobs_of(SendReceipt, "order")

    with pytest.raises(InvalidOption, match="primary key of Token; it is VARCHAR"):
        Base.registry.configure()
    Base.registry.dispose()
    configure_mappers()


def test_plans(place: Place) -> None:
    """One object's jobs are found by the index on args, and those of many without a nested loop."""
    with place.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO river_job (args, kind, max_attempts)"
                " SELECT jsonb_build_object('order',"
                "   CASE WHEN n % 5 = 0 THEN to_jsonb(n) ELSE to_jsonb(n::text) END),"
                " CASE n % 5 WHEN 0 THEN 'send_receipt' ELSE 'other_' || n % 5 END, 25"
                f" FROM generate_series(1, {JOBS}) n"
            )
        )
        connection.execute(
            text("INSERT INTO shop_order SELECT n * 5, 'new' FROM generate_series(1, 20000) n")
        )
    with place.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE river_job, shop_order"))
    args = Job.args_of(SendReceipt)

    def plan(statement: Any) -> str:
        with place.engine.connect() as connection:
            compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
            rows = connection.exec_driver_sql(f"EXPLAIN {compiled}", dict(compiled.params))
            return "\n".join(rows.scalars())

    found = plan(select(Job.id).where(args.order == 50))
    assert "river_job_args_index" in found, found
    found = plan(select(Job.id).where(args.order.in_(range(5, 55, 5))))
    assert "river_job_args_index" in found, found
    found = plan(
        select(Job.id).where(args.order == 50, Job.state == JobState.available).order_by(Job.id)
    )
    assert "river_job_args_index" in found, found
    found = plan(select(func.count()).where(args.order == Order.id))
    assert "Nested Loop" not in found, found
    found = plan(select(Order.id).where(Order.receipts.any(Job.state == JobState.discarded)))
    assert "Nested Loop" not in found, found
    lazy: list[str] = []
    with Session(place.engine) as session:
        order = session.get_one(Order, 50)
        event.listen(
            place.engine,
            "before_cursor_execute",
            lambda _c, cursor, statement, parameters, _context, _m: lazy.extend(
                row[0] for row in cursor.execute(f"EXPLAIN {statement}", parameters).fetchall()
            ),
        )
        assert len(order.receipts) == 1
    assert "river_job_args_index" in "\n".join(lazy), lazy

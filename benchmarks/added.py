"""Does it cost to leave the insert to the flush? `client.add` beside `insert_many`."""

import time
from collections.abc import Callable

import attrs
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.harness import SCHEMA, Comparison, in_turns, profiled, schema
from riverrun import Client, JobArgs, Notify, Ref
from riverrun.bench.work import NoOp

COUNT = 1_000


class Base(DeclarativeBase):
    """The host's classes."""


class Order(Base):
    """What the jobs are about."""

    __tablename__ = "benchmark_orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@attrs.frozen
class SendReceipt(JobArgs, kind="riverrun_bench_receipt"):
    """A job about an object."""

    order: Ref[Order]


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Insert 1,000 jobs in a session's transaction, with 1,000 objects and without."""
    rounds = 2 if small else 9
    url = engine.url.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    near = create_engine(url)
    with schema(engine):
        Base.metadata.create_all(near)
        client = Client(near, notify=Notify.off)

        def insert_objects(session: Session) -> None:
            orders = [Order() for _ in range(COUNT)]
            session.add_all(orders)
            session.flush()
            client.insert_many(session, [SendReceipt(order) for order in orders])

        def add_objects(session: Session) -> None:
            for _ in range(COUNT):
                session.add(order := Order())
                client.add(session, SendReceipt(order))
            session.flush()

        def insert(session: Session) -> None:
            client.insert_many(session, [NoOp(n) for n in range(COUNT)])

        def add(session: Session) -> None:
            for n in range(COUNT):
                client.add(session, NoOp(n))
            session.flush()

        def rate(work: Callable[[Session], None]) -> Callable[[], float]:
            def measure() -> float:
                with Session(near) as session:
                    session.connection()
                    began = time.perf_counter()
                    work(session)
                    return COUNT / (time.perf_counter() - began)

            return measure

        found = []
        for question, theirs, ours in (
            ("1,000 objects and a job for each, in one flush", insert_objects, add_objects),
            ("1,000 jobs, in one flush", insert, add),
        ):
            sides = {"flush, then insert_many": rate(theirs), "add": rate(ours)}
            for warm in sides.values():
                warm()
            samples = in_turns(sides, rounds)
            compared = Comparison(
                question=question, unit="jobs/s", samples=samples, targets={"add": 0.9}
            )
            found.append(profiled(compared, {"add": sides["add"]}))
    near.dispose()
    return found

"""What type checkers must accept of references to mapped objects."""

from dataclasses import dataclass

import attrs
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session

from riverrun import AddedJob, Client, InsertOpts, JobArgs, Ref, Workers

workers = Workers()
engine = create_engine("postgresql+psycopg:///app")
client = Client(engine)


class Base(DeclarativeBase):
    """The host's classes."""


class Order(Base):
    """A mapped class."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@attrs.frozen
class OfAttrs(JobArgs, kind="ref_of_attrs"):
    order: Ref[Order]
    other: Ref[Order] | None = None
    more: list[Ref[Order]] = attrs.field(factory=list)


@dataclass
class OfData(JobArgs, kind="ref_of_dataclass"):
    order: Ref[Order]


class OfModel(JobArgs, BaseModel, kind="ref_of_pydantic"):
    order: Ref[Order]
    other: Ref[Order] | None = None


@workers.register(if_gone="discard")
def referring(args: OfAttrs) -> None:
    """Load what the args refer to."""
    with Session(engine) as session:
        found: Order | None = args.order.get(session, with_for_update=True)
        there: Order = args.order.get_one(session, with_for_update={"skip_locked": True})
        other: Order | None = args.other.get(session) if args.other else None
        more: list[Order] = [each.get_one(session) for each in args.more]
        key = Ref.by_key(Order, 5)
        by_key: Ref[Order] = key
        ids = [each and each.id for each in (found, there, other, *more)]
        assert by_key.entity is Order, ids


@workers.register
async def referring_async(args: OfModel) -> None:
    """Load what the args refer to."""
    async with AsyncSession() as session:
        there: Order = await args.order.get_one_async(session)
        found: Order | None = await args.order.get_async(session, with_for_update=True)
        assert there is found


def add(
    session: Session,
    registry: scoped_session[Session],
    asynchronous: AsyncSession,
    order: Order,
) -> int | None:
    """Add jobs to sessions."""
    client.add(registry, OfAttrs(order), InsertOpts(coalesce=True))
    client.add(asynchronous, OfData(Ref(order)), queue="mail", delay=5)
    added: AddedJob = client.add(session, OfModel(order=order), coalesce=True)
    return None if added.job is None else added.job.id


def refer(order: Order) -> None:
    """Pass objects and references."""
    OfAttrs(order)
    OfAttrs(order=Ref(order), other=Ref(order), more=[Ref(order)])
    OfData(Ref(order))
    OfModel(order=order, other=Ref(order))

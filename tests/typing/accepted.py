"""What type checkers must accept: each use that the documentation shows."""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Generic, TypeVar

import attrs
from pydantic import BaseModel
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from riverrun import (
    Client,
    Cron,
    InsertOpts,
    JobArgs,
    JobContext,
    PeriodicJob,
    QueueConfig,
    RawArgs,
    Workers,
    jobs_of,
)
from riverrun.models import Job
from riverrun.testing import work_one
from riverrun.verbs import insert

T = TypeVar("T")
workers = Workers()


@attrs.frozen
class Attrs(JobArgs, kind="of_attrs"):
    to: str


@dataclass
class Data(JobArgs, kind="of_dataclass", kind_aliases=["old"]):
    to: str


class Model(JobArgs, BaseModel, kind="of_pydantic", insert_opts=InsertOpts(queue="mail")):
    to: str


@attrs.frozen
class Own:
    kind: ClassVar[str] = "of_nobody"
    to: str


class Undeclared:
    kind = "of_nobody_either"


@attrs.frozen
class Box(JobArgs, Generic[T], kind="box"):
    item: T


@workers.register
def plain(args: Attrs) -> None:
    """Work."""


@workers.register
def with_context(args: Data, ctx: JobContext) -> int:
    """Work."""
    return ctx.job.id


@workers.register(timeout=3, executor="thread")
def with_options(args: Model, *, ctx: JobContext | None = None) -> None:
    """Work."""


@workers.register(kind="raw_one")
def raw(args: RawArgs) -> None:
    """Work."""


@workers.register
async def later(args: Own, ctx: JobContext) -> None:
    """Work."""


@workers.register
def undeclared(args: Undeclared) -> None:
    """Work."""


@workers.register
def generic(args: Box[int]) -> None:
    """Work."""


engine = create_engine("postgresql+psycopg:///app")
client = Client(
    engine,
    workers=workers,
    queues={"default": 10, "mail": QueueConfig(max_workers=2)},
    periodic_jobs=[
        PeriodicJob(Cron("@daily"), Attrs("a")),
        PeriodicJob(Cron("@daily"), lambda: Attrs("a")),
    ],
)
named = Client(engine, queues=["default"])
slots: dict[str, int] = {"default": 10}
counted = Client(engine, queues=slots)

with Session(engine) as session:
    client.insert(session, Attrs("a"), InsertOpts(delay=timedelta(minutes=5)))
    client.insert(session, Data("a"), queue="mail", priority=2, delay=60, tags=["one"])
    client.insert(session, Model(to="a"), InsertOpts(priority=1), queue="mail")
    client.insert(session, Own("a"))
    client.insert(session, Undeclared())
    client.insert(session, Box(1))
    client.insert(session, RawArgs(kind="go_one", encoded={"to": "a"}))
    client.insert_many(session, [Attrs("a"), (Data("a"), InsertOpts(queue="mail"))])
    insert(session, Attrs("a"))
    work_one(session, client, Attrs("a"))
    plain(Attrs("a"))
    with_options(Model(to="a"))


async def handler(session: AsyncSession) -> None:
    """Insert from async code."""
    await client.insert_async(session, Attrs("a"), queue="mail")
    await session.run_sync(client.insert, Attrs("a"))


class Base(DeclarativeBase):
    """An application's models."""


class User(Base):
    """A class whose objects are named by jobs."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    mails: Mapped[list[Job]] = jobs_of(Attrs, "to")


def read(session: Session, user: User) -> list[Job]:
    """Ask for jobs by their args."""
    args = Job.args_of(Attrs)
    statement = select(Job).where(args.to == "a", args.to.in_(["a"]), Job.kind_is(Attrs))
    statement = statement.where(args.to.like("a%"), args.to > "a").order_by(args.to.desc())
    return [*session.scalars(statement), *user.mails]


def at_once(session: Session) -> int:
    """Insert and change any number of jobs."""
    client.insert_from(session, select(User.id.label("to")), Attrs, queue="mail")
    client.cancel_where(session, Job.args_of(Attrs).to == User.id, User.id > 5, dry_run=True)
    client.reschedule_where(session, Job.kind_is(Attrs), scheduled_at=Job.scheduled_at)
    return client.delete_where(engine, Job.queue == "mail")

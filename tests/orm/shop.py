"""A shop: its models, the kinds of jobs about them, and the database with both."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateSchema, DropSchema

from riverrun import Client, JobArgs
from riverrun.models import Job
from riverrun.orm.relationships import jobs_of
from schemas import new_schema_name, search_path_url


@attrs.frozen
class SendReceipt(JobArgs, kind="send_receipt", kind_aliases=["mail_receipt"]):
    """Args of a job that sends a receipt for an order."""

    order: int
    to: str | None = None
    tags: list[str] = attrs.field(factory=list)


@attrs.frozen
class PackLine(JobArgs, kind="pack_line"):
    """Args of a job that packs a line of an order."""

    line: list[Any]


class Base(DeclarativeBase):
    """The shop's models."""


class Order(Base):
    """An order."""

    __tablename__ = "shop_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="new")
    receipts: Mapped[list[Job]] = jobs_of(SendReceipt, "order")


class Line(Base):
    """A line of an order."""

    __tablename__ = "shop_line"
    order_id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(primary_key=True)


Line.jobs = jobs_of(PackLine, "line")  # type: ignore[attr-defined]


@attrs.frozen
class Place:
    """The database of the shop and its jobs.

    Attributes:
        engine: The shop's engine.
        client: A client on that engine.
        job: The mapped class of the jobs there.
    """

    engine: Engine
    client: Client
    job: type[Job]


PLACES = ("search path", "schema")


@contextmanager
def opened(kind: str, engine: Engine, schema: str) -> Iterator[Place]:
    """Yield a shop whose jobs are in `schema`: on its search path, or beside the shop's schema."""
    own = schema if kind == "search path" else new_schema_name("shop")
    if own is not schema:
        with engine.begin() as connection:
            connection.execute(CreateSchema(own))
    url = search_path_url(engine.url, own)
    host = create_engine(url)
    try:
        Base.metadata.create_all(host)
        if own is schema:
            yield Place(host, Client(host), Job)
        else:
            yield Place(host, Client(host, schema=schema), Job.in_schema(schema))
    finally:
        host.dispose()
        if own is not schema:
            with engine.begin() as connection:
                connection.execute(DropSchema(own, cascade=True))

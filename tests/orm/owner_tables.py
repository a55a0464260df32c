"""Mapped classes whose objects own jobs. No other tests delete such objects."""

import uuid
from typing import ClassVar

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from orm.tables import Base


class Trip(Base):
    """A class with an autoincrement key, whose stops are orphans without it."""

    __tablename__ = "trips"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="new")
    stops: Mapped[list["Stop"]] = relationship(cascade="all, delete-orphan", order_by="Stop.n")


class Stop(Base):
    """A class with a key of two columns."""

    __tablename__ = "stops"
    trip_id: Mapped[int] = mapped_column(ForeignKey("trips.id"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)


class Pass(Base):
    """A class whose key is made by the client."""

    __tablename__ = "passes"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)


class Rider(Base):
    """A class with a subclass in a table of its own."""

    __tablename__ = "riders"
    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    __mapper_args__: ClassVar = {"polymorphic_on": "type", "polymorphic_identity": "rider"}


class Driver(Rider):
    """The subclass."""

    __tablename__ = "drivers"
    id: Mapped[int] = mapped_column(ForeignKey("riders.id"), primary_key=True)
    __mapper_args__: ClassVar = {"polymorphic_identity": "driver"}


class Seat(Base):
    """A class whose objects are deleted by bulk statements only in the test of those."""

    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True)

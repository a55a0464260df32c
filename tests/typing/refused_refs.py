"""What type checkers must refuse of references: each line that says so, and no other."""

from dataclasses import dataclass

import attrs
from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from riverrun import JobArgs, Ref


class Base(DeclarativeBase):
    """The host's classes."""


class Order(Base):
    """A mapped class."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class User(Base):
    """Another one."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


@attrs.frozen
class OfAttrs(JobArgs, kind="ref_of_attrs"):
    order: Ref[Order]


@dataclass
class OfData(JobArgs, kind="ref_of_dataclass"):
    order: Ref[Order]


class OfModel(JobArgs, BaseModel, kind="ref_of_pydantic"):
    order: Ref[Order]


def refer(user: User, args: OfAttrs) -> None:
    """Pass what is no reference to an order."""
    OfAttrs(user)  # refused
    OfAttrs(Ref(user))  # refused
    OfAttrs(5)  # refused
    OfData(user)  # refused
    OfModel(order=user)  # refused
    assert args.order.id  # refused

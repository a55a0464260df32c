"""The application's mapped classes: one for each kind of mapping and each kind of key."""

import enum
import uuid
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Enum,
    FetchedValue,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    TypeDecorator,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    mapped_column,
    registry,
    relationship,
)


class Base(DeclarativeBase):
    """The base of the application's declarative classes."""


class Order(Base):
    """A class with an autoincrement key."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="new")
    lines: Mapped[list["Line"]] = relationship(
        back_populates="order", cascade="all, delete-orphan", order_by="Line.n"
    )


class Line(Base):
    """A class with a key of two columns, one of them a foreign key."""

    __tablename__ = "lines"
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[Order] = relationship(back_populates="lines", lazy="joined")


class Token(Base):
    """A class whose key is made by the client."""

    __tablename__ = "tokens"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)


class Ticket(Base):
    """A class whose key is made by the server."""

    __tablename__ = "tickets"
    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, server_default=text("gen_random_uuid()")
    )


class Person(Base):
    """A class with subclasses, in their own tables or in its own."""

    __tablename__ = "persons"
    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    __mapper_args__: ClassVar = {"polymorphic_on": "type", "polymorphic_identity": "person"}


class Boss(Person):
    """A subclass with a table of its own."""

    __tablename__ = "bosses"
    id: Mapped[int] = mapped_column(ForeignKey("persons.id"), primary_key=True)
    car: Mapped[str] = mapped_column(default="")
    __mapper_args__: ClassVar = {"polymorphic_identity": "boss"}


class Clerk(Person):
    """A subclass in the table of its base."""

    __mapper_args__: ClassVar = {"polymorphic_identity": "clerk"}


class DataBase(MappedAsDataclass, DeclarativeBase):
    """The base of the application's classes that are dataclasses."""

    metadata = Base.metadata


class Parcel(DataBase):
    """A mapped class that is a dataclass."""

    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    to: Mapped[str] = mapped_column(default="")


class Invoice:
    """A class that is mapped imperatively."""


_invoices = Table("invoices", Base.metadata, Column("number", Integer, primary_key=True))
registry().map_imperatively(Invoice, _invoices)


class Color(enum.Enum):
    """A key that is stored by its name."""

    red = "R"
    blue = "B"


class Size(enum.Enum):
    """A key that is stored by its value."""

    small = "S"
    large = "L"


class Level(enum.IntEnum):
    """A key that is an int."""

    low = 1
    high = 2


class Guid(TypeDecorator[uuid.UUID]):
    """A UUID type as many applications wrote it before SQLAlchemy had one."""

    impl = CHAR
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(PG_UUID())
        return dialect.type_descriptor(CHAR(32))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or isinstance(value, uuid.UUID) else uuid.UUID(value)


class Prefixed(TypeDecorator[str]):
    """A key that the application sees as `ord_5`."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else int(value.removeprefix("ord_"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else f"ord_{value}"


class OfLevel(TypeDecorator[Level]):
    """An IntEnum stored as an integer."""

    impl = Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else Level(value)


KEYS: dict[str, tuple[Any, Any, Any]] = {
    "int": (Integer(), 5, 5),
    "bigint": (BigInteger(), 2**60, 2**60),
    "text": (String(), 'a "b" \\ é', 'a "b" \\ é'),
    "char": (CHAR(4), "ab", "ab  "),
    "uuid": (Uuid(), uuid.UUID(int=7), str(uuid.UUID(int=7))),
    "uuid_text": (Uuid(as_uuid=False), str(uuid.UUID(int=7)), str(uuid.UUID(int=7))),
    "guid": (Guid(), uuid.UUID(int=7), str(uuid.UUID(int=7))),
    "date": (None, date(2026, 3, 1), "2026-03-01"),
    "stamp": (None, datetime(2026, 3, 1, 12, 0, 0, 500_000), "2026-03-01T12:00:00.5"),
    "time": (None, time(12, 30), "12:30:00"),
    "aware": (
        DateTime(timezone=True),
        datetime.fromisoformat("2026-07-01T12:00:00+02:00"),
        "2026-07-01T10:00:00+00:00",
    ),
    "numeric": (Numeric(10, 2), Decimal("1.5"), "1.50"),
    "bare_numeric": (Numeric(), Decimal("1.50"), "1.5"),
    "bytes": (LargeBinary(), b"\x00\xff", "\\x00ff"),
    "color": (Enum(Color), Color.red, "red"),
    "size": (
        Enum(Size, values_callable=lambda cls: [each.value for each in cls], native_enum=False),
        Size.large,
        "L",
    ),
    "label": (Enum("one", "two", name="label"), "two", "two"),
    "prefixed": (Prefixed(), "ord_5", 5),
    "level": (OfLevel(), Level.high, 2),
    "flag": (None, True, True),
}
"""By name: a key's type, an example key, and the JSON of that key."""


def _keyed(name: str, kind: Any, key: Any) -> type[Any]:
    hints = {"id": Mapped[type(key)]}
    types = () if kind is None else (kind,)
    column = mapped_column(*types, primary_key=True, autoincrement=False)
    body = {"__tablename__": f"by_{name}", "__annotations__": hints, "id": column}
    return type(f"By{name.title()}", (Base,), body)


KEYED = {name: _keyed(name, kind, key) for name, (kind, key, _) in KEYS.items()}
"""By the same names: a class with a key of that type."""
globals().update({cls.__name__: cls for cls in KEYED.values()})  # so that they can be pickled


class Versioned(Base):
    """A class with a version, and a column that the server sets."""

    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(default=0)
    name: Mapped[str] = mapped_column(default="")
    changed: Mapped[datetime] = mapped_column(
        server_default=func.now(), server_onupdate=FetchedValue()
    )
    __mapper_args__: ClassVar = {"version_id_col": version}

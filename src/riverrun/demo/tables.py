"""The host's own tables."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of the host's own tables."""


class User(Base):
    """A user who signed up."""

    __tablename__ = "demo_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Credit(Base):
    """Money in a user's account. No constraint prevents a second row: the worker must."""

    __tablename__ = "demo_credit"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    cents: Mapped[int]

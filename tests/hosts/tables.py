"""The host's own models."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The host's models."""


class Row(Base):
    """A row of the host's."""

    __tablename__ = "host_row"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]

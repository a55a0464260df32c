"""The tables of an application whose workers take sessions."""

from collections.abc import Iterator

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from schemas import search_path_url


class Base(DeclarativeBase):
    """The base of the application's models."""


class Entry(Base):
    """A row that a worker writes."""

    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Account(Base):
    """A row that many workers change. Its version shows SQLAlchemy a concurrent change."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  SQLAlchemy's own form


def host_engine(database_url: str, schema: str) -> Iterator[Engine]:
    """Yield the application's engine, whose search path is the test's schema."""
    url = search_path_url(database_url, schema)
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def host_engine_with_account(database_url: str, schema: str) -> Iterator[Engine]:
    """Yield the application's engine as `host_engine` does, with one account."""
    for engine in host_engine(database_url, schema):
        with Session(engine) as session, session.begin():
            session.add(Account(id=1))
        yield engine


def names(engine: Engine) -> list[str]:
    """Return the names of the entries that workers have written."""
    with Session(engine) as session:
        return list(session.scalars(select(Entry.name).order_by(Entry.id)))

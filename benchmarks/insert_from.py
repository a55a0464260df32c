"""What does it cost to insert jobs from a select, beside the statement written by hand?"""

import time

import attrs
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.harness import SCHEMA, Comparison, in_turns, profiled, schema
from riverrun import Client, JobArgs, Notify

RAW = f"""
    INSERT INTO {SCHEMA}.river_job (args, kind, max_attempts)
    SELECT jsonb_build_object('user_id', id, 'name', name), 'bench_digest', 25
    FROM bench_user"""


class Base(DeclarativeBase):
    """The host's models."""


class User(Base):
    """A row that gets a job."""

    __tablename__ = "bench_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@attrs.frozen
class Digest(JobArgs, kind="bench_digest"):
    """Args of a number and a text."""

    user_id: int
    name: str


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Insert a job for each row of a table, in a transaction that is rolled back."""
    rows = 10_000 if small else 1_000_000
    url = engine.url.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    near = create_engine(url)
    source = select(User.id.label("user_id"), User.name)
    with schema(engine):
        Base.metadata.create_all(near)
        client = Client(near, notify=Notify.off)
        with near.begin() as connection:
            connection.execute(
                text("INSERT INTO bench_user SELECT n, 'user ' || n FROM generate_series(1, :n) n"),
                {"n": rows},
            )

        def raw() -> float:
            with near.connect() as connection:
                began = time.perf_counter()
                count = connection.execute(text(RAW)).rowcount
                took_s = time.perf_counter() - began
                connection.rollback()
            return _rate(count, rows, took_s)

        def ours() -> float:
            with near.connect() as connection:
                began = time.perf_counter()
                count = client.insert_from(connection, source, Digest)
                took_s = time.perf_counter() - began
                connection.rollback()
            return _rate(count, rows, took_s)

        sides = {"raw INSERT ... SELECT": raw, "riverrun": ours}
        comparison = Comparison(
            question=f"insert of {rows:,} jobs from a select",
            unit="jobs/s",
            samples=in_turns(sides, 1 if small else 5),
            targets={"riverrun": 0.7},
        )
        found = [profiled(comparison, {"riverrun": ours})]
    near.dispose()
    return found


def _rate(count: int, rows: int, took_s: float) -> float:
    assert count in (rows, -1), f"{count} jobs of {rows}"
    return rows / took_s

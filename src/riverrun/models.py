"""Declarative models of River's tables, exactly as River creates them, and of riverrun's own.

They describe the tables and do not create them: `riverrun.migrations` does. River's tables have no
schema here; `schema_translate_map` names one where it is not on the search path.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry

from riverrun.jobs.columns import (
    JobStateType,
    Json,
    JsonList,
    StateMask,
    TagList,
    TextList,
    Timestamp,
    job_state_type,
)
from riverrun.jobs.states import JobState
from riverrun.orm.expressions import JobExpressions


class Base(DeclarativeBase):
    """The base of riverrun's models; `Base.metadata` holds none of the application's tables."""

    metadata = MetaData()


class Job(JobExpressions, Base):
    """A job: when it runs, its input, and the results of its attempts."""

    __tablename__ = "river_job"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    state: Mapped[JobState] = mapped_column(JobStateType, server_default="available")
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("25"))
    attempted_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    finalized_at: Mapped[datetime | None] = mapped_column(Timestamp)
    scheduled_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    args: Mapped[dict[str, Any]] = mapped_column(Json)
    attempted_by: Mapped[list[str] | None] = mapped_column(TextList)
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JsonList)
    kind: Mapped[str] = mapped_column(Text)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")
    queue: Mapped[str] = mapped_column(Text, server_default="default")
    tags: Mapped[list[str]] = mapped_column(TagList, server_default="{}")
    unique_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    unique_states: Mapped[int | None] = mapped_column(StateMask)

    @staticmethod
    def in_schema(schema: str | None) -> "type[Job]":
        """Return the class for the jobs in `schema`; `Job` itself if that is None.

        Use it in the application's own statements where River's tables have a schema of their own,
        and `schema_translate_map` would also apply to the application's tables:

            Receipts = Job.in_schema("jobs")
            session.scalars(select(Receipts).where(Receipts.kind_is(SendReceipt)))

        Args:
            schema: The name of the schema.
        """
        # As a plain str: a subclass, such as SQLAlchemy's quoted_name, is cached apart from it.
        return Job if schema is None else _job_in(str(schema))


@lru_cache(maxsize=1024)
def _job_in(schema: str) -> type[Job]:
    # Concrete: it has a table of its own, and select(Job) does not load its instances.
    table = Job.__table__.to_metadata(MetaData(), schema=schema)  # type: ignore[attr-defined]
    body = {"__doc__": Job.__doc__, "__module__": __name__, "__abstract__": True}
    cls = type("Job", (Job,), body)
    table.c.state.type = job_state_type(schema)
    columns = Job.__mapper__.column_attrs
    properties = {column.key: table.c[column.columns[0].name] for column in columns}
    # In a registry of its own, because a registry has only one class of each name.
    registry().map_imperatively(cls, table, inherits=Job, concrete=True, properties=properties)
    return cls


class Queue(Base):
    """A queue that a client works, and whether it is paused."""

    __tablename__ = "river_queue"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")
    paused_at: Mapped[datetime | None] = mapped_column(Timestamp)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.current_timestamp())


class Leader(Base):
    """The client that does maintenance, and the end of its term."""

    __tablename__ = "river_leader"

    elected_at: Mapped[datetime] = mapped_column(Timestamp)
    expires_at: Mapped[datetime] = mapped_column(Timestamp)
    leader_id: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text, primary_key=True, server_default="default")


class Migration(Base):
    """A migration that was applied to this database: its line and version."""

    __tablename__ = "river_migration"

    line: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class Notification(Base):
    """A notification, for databases that have no NOTIFY; unused on PostgreSQL."""

    __tablename__ = "river_notification"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    payload: Mapped[str] = mapped_column(Text)
    topic: Mapped[str] = mapped_column(Text)


class ClientRecord(Base):
    """A running client; it wrote its last heartbeat at `heartbeat_at`."""

    __tablename__ = "riverrun_client"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    hostname: Mapped[str] = mapped_column(Text)
    pid: Mapped[int] = mapped_column()
    queues: Mapped[list[str]] = mapped_column(TextList, server_default="{}")
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")


class PeriodicRun(Base):
    """When a periodic job with an id runs next, whichever client leads then.

    The deferred columns are there from version 3 of riverrun's line on.
    """

    __tablename__ = "riverrun_periodic"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    next_run_at: Mapped[datetime] = mapped_column(Timestamp)
    last_run_at: Mapped[datetime | None] = mapped_column(Timestamp)
    kind: Mapped[str | None] = mapped_column(Text, deferred=True)
    queue: Mapped[str | None] = mapped_column(Text, deferred=True)
    schedule: Mapped[str | None] = mapped_column(Text, deferred=True)
    zone: Mapped[str | None] = mapped_column(Text, deferred=True)
    paused_at: Mapped[datetime | None] = mapped_column(Timestamp, deferred=True)
    resumed_at: Mapped[datetime | None] = mapped_column(Timestamp, deferred=True)
    run_now_at: Mapped[datetime | None] = mapped_column(Timestamp, deferred=True)


class Sample(Base):
    """How many jobs of a queue and a kind reached a state in `step_s` seconds from `at` on.

    Empty names of a queue and a kind stand for all jobs beyond the most frequent ones.
    """

    __tablename__ = "riverrun_sample"

    step_s: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(Timestamp, primary_key=True)
    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(Text, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    wait_s: Mapped[float] = mapped_column(Double)
    run_s: Mapped[float] = mapped_column(Double)
    wait_counts: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    run_counts: Mapped[list[int]] = mapped_column(ARRAY(Integer))


class Action(Base):
    """What a user did to jobs, a queue or a periodic job, such as through the dashboard."""

    __tablename__ = "riverrun_action"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    user_name: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    count: Mapped[int] = mapped_column(BigInteger)
    job_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default="{}")
    filter: Mapped[dict[str, Any]] = mapped_column(Json, server_default="{}")

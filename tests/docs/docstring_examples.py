"""The setup that examples in docstrings need, and assertions that must hold after them."""

import attrs


@attrs.frozen(kw_only=True)
class Example:
    """One docstring's examples.

    Attributes:
        given: Code before them; `engine` and `url` are those of an empty database.
        then: Code after them.
        migrated: Whether the database has the tables at their start.
    """

    given: str = ""
    then: str = ""
    migrated: bool = True


SHOP = """
import attrs
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from riverrun import Client, InsertOpts, JobArgs, JobState, Workers, verbs

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "shop_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]

Base.metadata.create_all(engine)
"""

EMAIL = """
@attrs.frozen
class SendEmail(JobArgs, kind="send_email"):
    user_id: int
"""

ORDERS = """
import attrs
from datetime import timedelta
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, declared_attr, mapped_column
from riverrun import Client, InsertOpts, JobArgs, JobState, verbs
from riverrun.models import Job
from riverrun.orm.relationships import jobs_of
from riverrun.verbs import cancel_where, delete_where, insert_from, reschedule_where, retry_where

@attrs.frozen
class SendReceipt(JobArgs, kind="send_receipt"):
    order: int

@attrs.frozen
class SendDigest(JobArgs, kind="send_digest"):
    user_id: int

class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)

    @declared_attr.directive
    def __tablename__(cls):
        return cls.__name__.lower()
"""

ROWS = (
    ORDERS
    + """
class Order(Base):
    status: Mapped[str]

class User(Base):
    active: Mapped[bool]

Base.metadata.create_all(engine)
client = Client(engine)
session = Session(engine)
order = Order(id=1, status="void")
session.add_all([order, User(id=7, active=True), User(id=8, active=False)])
session.flush()
job_id = verbs.insert(session, SendReceipt(1), InsertOpts(queue="mail")).job.id
"""
)

OBJECTS = """
import attrs
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from riverrun import Client, JobArgs, Ref
from riverrun.models import Job

class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)

class Order(Base):
    __tablename__ = "shop_order"
    status: Mapped[str]

class User(Base):
    __tablename__ = "shop_user"

class Upload(Base):
    __tablename__ = "shop_upload"
    path: Mapped[str]

@attrs.frozen
class SendReceipt(JobArgs, kind="send_receipt"):
    order: Ref[Order]

@attrs.frozen
class Welcome(JobArgs, kind="welcome"):
    user: Ref[User]

@attrs.frozen
class OrderChanged(JobArgs, kind="order_changed"):
    order: Ref[Order]

@attrs.frozen
class DeleteFile(JobArgs, kind="delete_file"):
    path: str

def jobs():
    with Session(engine) as other:
        return [(job.kind, job.args) for job in other.scalars(select(Job).order_by(Job.id))]

Base.metadata.create_all(engine)
client = Client(engine)
session = Session(engine)
order, user, upload = Order(id=1, status="open"), User(id=7), Upload(path="a.pdf")
"""

EXAMPLES = {
    "riverrun.client.unit_of_work.add": Example(
        given=OBJECTS, then="assert jobs() == [('send_receipt', {'order': 1})]"
    ),
    "riverrun.client.unit_of_work.on_insert": Example(
        given=OBJECTS,
        then="""
session.add(user)
session.commit()
assert jobs() == [("welcome", {"user": 7})]
""",
    ),
    "riverrun.client.unit_of_work.on_update": Example(
        given=OBJECTS + "session.add(order)\nsession.commit()",
        then="""
for status in ("packed", "paid"):
    order.status = status
    session.commit()
assert jobs() == [("order_changed", {"order": 1})]
""",
    ),
    "riverrun.client.unit_of_work.on_delete": Example(
        given=OBJECTS + "session.add(upload)\nsession.commit()",
        then="""
session.delete(upload)
session.commit()
assert jobs() == [("delete_file", {"path": "a.pdf"})]
""",
    ),
    "riverrun.client.set_based.insert_from": Example(
        given=ROWS,
        then="""
jobs = session.scalars(select(Job).where(Job.kind_is(SendDigest)).order_by(Job.id)).all()
assert [job.args for job in jobs] == [{"user_id": 7}, {"user_id": 8}]
assert {job.queue for job in jobs} == {"mail"}
session.close()
""",
    ),
    "riverrun.ext.flask": Example(
        given=SHOP
        + EMAIL
        + """
from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from riverrun.ext.flask import Riverrun
from riverrun.testing import drain
""",
        then="""
app = create_app(url)
app.testing = True
assert app.test_client().post("/signup", data={"email": "a@example.com"}).status_code == 200
with app.app_context():
    (worked,) = drain(engine, jobs.client)
    assert worked.job.args == {"user_id": 1}
    assert worked.state is JobState.completed
    jobs.client.flush_announcements()
    db.engine.dispose()
assert {command for command in app.cli.commands} >= {"riverrun"}
""",
    ),
    "riverrun.ext.pyramid": Example(
        given=SHOP
        + EMAIL
        + """
import transaction, zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from sqlalchemy.orm import sessionmaker
config = Configurator()
config.include("riverrun.ext.pyramid")
client = Client(engine)
user = User(id=7, email="a@example.com")
""",
        then="""
config.commit()
request = Request.blank("/")
request.registry = config.registry
manager = transaction.TransactionManager(explicit=True)
with manager:
    request.dbsession = sessionmaker(bind=engine)()
    zope.sqlalchemy.register(request.dbsession, transaction_manager=manager)
    from pyramid.request import apply_request_extensions
    apply_request_extensions(request)
    signup(request)
assert request.riverrun is client
assert verbs.get(engine, 1).args == {"user_id": 7}
""",
    ),
    "riverrun.instrumentation.opentelemetry": Example(
        given=SHOP + "from riverrun.instrumentation.opentelemetry import Tracing",
        then=EMAIL
        + """
client.insert(engine, SendEmail(1))
""",
    ),
    "riverrun.instrumentation.prometheus": Example(
        given=SHOP + "client = Client(engine)",
        then="""
from prometheus_client import REGISTRY, generate_latest
assert b"riverrun_leader 0.0" in generate_latest()
for collector in list(REGISTRY._collector_to_names):
    if "riverrun" in str(REGISTRY._collector_to_names[collector]) or (
        type(collector).__module__.startswith("riverrun")
    ):
        REGISTRY.unregister(collector)
""",
    ),
    "riverrun.jobs.args.JobArgs": Example(
        given=SHOP, then="assert verbs.insert(engine, SendEmail('a')).job.kind == 'send_email'"
    ),
    "riverrun.migrations": Example(
        given="""
from alembic.migration import MigrationContext
from alembic.operations import Operations
""",
        then="""
with engine.begin() as connection:
    op = Operations(MigrationContext.configure(connection))
    upgrade()
with engine.connect() as connection:
    assert riverrun.migrations.validate(connection) == []
""",
        migrated=False,
    ),
    "riverrun.models.in_schema": Example(
        given=ROWS
        + """
from sqlalchemy.schema import CreateSchema
from riverrun import migrations
session.close()
with engine.begin() as connection:
    connection.execute(CreateSchema("jobs"))
    migrations.migrate(connection, schema="jobs")
    verbs.insert(connection, SendReceipt(2), schema="jobs")
""",
        then="""
assert session.scalars(select(Receipts)).one().args == {"order": 2}
session.close()
""",
    ),
    "riverrun.orm.expressions.args_of": Example(
        given=ROWS,
        then="""
statement = select(Job).where(Job.args_of(SendReceipt).order == order.id)
assert session.scalars(statement).one().id == job_id
session.close()
""",
    ),
    "riverrun.orm.relationships.jobs_of": Example(
        given=ORDERS,
        then="""
Base.metadata.create_all(engine)
with Session(engine) as session:
    order = Order(id=1)
    session.add(order)
    session.flush()
    job = verbs.insert(session, SendReceipt(1)).job
    assert [receipt.id for receipt in order.receipts] == [job.id]
    assert [receipt.id for receipt in order.mails] == [job.id]
""",
    ),
    "riverrun.testing": Example(
        given=SHOP
        + """
from riverrun.testing import drain, require_inserted
workers = Workers()
sent = []

@attrs.frozen
class SendEmail(JobArgs, kind="send_email"):
    to: str

@workers.register
def send_email(args: SendEmail) -> None:
    sent.append(args.to)

client = Client(engine, workers=workers)

def sign_up(session, email):
    session.add(User(email=email))
    client.insert(session, SendEmail(email), InsertOpts(queue="mail"))
""",
        then="""
assert sent == ["alice@example.com"]
assert verbs.list_jobs(engine).jobs == []
""",
    ),
    "riverrun.testing.clock.FrozenClock": Example(
        given=SHOP
        + EMAIL
        + """
from datetime import UTC, datetime, timedelta
from riverrun.testing import FrozenClock
""",
        then="""
job = client.insert(engine, SendEmail(1)).job
assert job.created_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
""",
    ),
    "riverrun.verbs.cancel.cancel_where": Example(
        given=ROWS,
        then="""
assert verbs.get(session, job_id).state is JobState.cancelled
session.close()
""",
    ),
    "riverrun.verbs.delete.delete_where": Example(
        given=ROWS + "gone = [1]",
        then="""
assert verbs.list_jobs(session).jobs == []
session.close()
""",
    ),
    "riverrun.verbs.insert_from.insert_from": Example(
        given=ROWS,
        then="""
job = session.scalars(select(Job).where(Job.kind_is(SendDigest))).one()
assert job.args == {"user_id": 7}
session.close()
""",
    ),
    "riverrun.verbs.reschedule.reschedule_where": Example(
        given=ROWS + "before = verbs.get(session, job_id).scheduled_at",
        then="""
job = verbs.get(session, job_id)
assert job.state is JobState.scheduled
assert job.scheduled_at - before >= timedelta(hours=2)
session.close()
""",
    ),
    "riverrun.verbs.retry.retry_where": Example(
        given=ROWS
        + """
with engine.begin() as connection:
    other = verbs.insert(connection, SendReceipt(2)).job
    verbs.cancel(connection, other.id)
    connection.execute(
        Job.__table__.update().where(Job.id == other.id).values(state=JobState.discarded)
    )
""",
        then="""
assert verbs.get(engine, other.id).state is JobState.available
session.close()
""",
    ),
    "riverrun.web": Example(
        given="from riverrun import Client\nclient = Client(engine)",
        then="""
assert authorize({}) is None
assert authorize({"REMOTE_USER": "ada"}) == User(name="ada", rights={"view", "retry"})
""",
        migrated=False,
    ),
    "riverrun.web.links.Link": Example(given="from riverrun.web import Link", migrated=False),
}

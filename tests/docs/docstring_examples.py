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

EXAMPLES = {
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
}

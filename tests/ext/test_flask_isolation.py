"""Flask: in a test, writes of views and workers join the test's transaction, and are undone."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ext.apps.flask_shop import Base, User
from riverrun import JobArgs, JobContext, verbs
from riverrun.ext.flask import Riverrun, client_of, rolled_back
from riverrun.testing import drain, require_inserted, require_not_inserted, work_one
from riverrun.testing import rolled_back as engine_rolled_back

SORTS: dict[str, Callable[[], object] | None] = {
    "app context": None,
    "thread": threading.get_ident,
    "process": lambda: 0,
    "lite": None,
    "plain": None,
}
HOWS = (
    "return",
    "commit",
    "twice",
    "rollback",
    "savepoint",
    "raise",
    "raise after commit",
    "async",
)


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    user_id: int
    how: str = "return"


@attrs.frozen
class GreetAsync(JobArgs, kind="greet_async"):
    user_id: int


@attrs.define
class Shop:
    """An application, and the session that its views and workers use."""

    app: Flask
    session: Callable[[], Any]
    engine: Engine

    def greeted(self, user_id: int) -> bool | None:
        """Return a user's columns as another connection sees them; None if there is no user."""
        with self.engine.connect() as connection:
            row = connection.execute(select(User.greeted_by).where(User.id == user_id)).first()
            return None if row is None else row[0] is not None

    def counts(self) -> tuple[int, dict[str, int]]:
        """Return how many users, and how many jobs by state, another connection sees."""
        states: dict[str, int] = {}
        for job in verbs.list_jobs(self.engine).jobs:
            states[f"{job.state} {job.attempt}"] = states.get(f"{job.state} {job.attempt}", 0) + 1
        with self.engine.connect() as connection:
            return len(connection.execute(select(User.id)).all()), states


@pytest.fixture(params=SORTS)
def shop(request: pytest.FixtureRequest, schema_engine: Engine, schema_url: str) -> Iterator[Shop]:
    """A shop with workers as in the guide, for each kind of session."""
    Base.metadata.create_all(schema_engine)
    app = Flask("shop")
    own: Engine | None = None
    if request.param == "lite":
        app.config["SQLALCHEMY_ENGINES"] = {"default": schema_url}
        db: Any = Lite(app)
        queue = Riverrun(app)
    elif request.param == "plain":
        own = create_engine(schema_url)
        db = type("Plain", (), {"session": scoped_session(sessionmaker(own))})
        app.teardown_appcontext(lambda _: db.session.remove())
        queue = Riverrun(app, engine=own, session=lambda: db.session)
    else:
        app.config["SQLALCHEMY_DATABASE_URI"] = schema_url
        scope = SORTS[request.param]
        options = {} if scope is None else {"scopefunc": scope}
        db = SQLAlchemy(app, model_class=Base, session_options=options)
        queue = Riverrun(app)
    write(app, db, queue)
    yield Shop(app, lambda: db.session, schema_engine)
    with app.app_context():
        (own or db.engine).dispose()


def write(app: Flask, db: Any, queue: Riverrun) -> None:
    """Give the application its view and its workers."""

    @queue.worker
    def greet(args: Greet, ctx: JobContext) -> None:
        user = db.session.get_one(User, args.user_id)
        user.greeted_by = 1
        match args.how:
            case "commit":
                db.session.commit()
            case "twice":
                db.session.commit()
                user.name = "twice"
                db.session.commit()
            case "rollback":
                db.session.flush()
                db.session.rollback()
            case "savepoint":
                with db.session.begin_nested():
                    user.name = "in the savepoint"
                db.session.commit()
            case "raise":
                db.session.flush()
                raise OSError("the bank said no")
            case "raise after commit":
                db.session.commit()
                raise OSError("the bank said no")

    @queue.worker
    async def greet_async(args: GreetAsync) -> None:
        db.session.get_one(User, args.user_id).greeted_by = 1
        db.session.commit()

    @app.post("/signup")
    def signup() -> dict[str, int]:
        user = User(name=request.form["name"])
        db.session.add(user)
        db.session.flush()
        job = queue.insert(Greet(user.id, "commit")).job
        if request.form["name"] == "fail":
            raise ValueError("after the insert")
        db.session.commit()
        return {"id": user.id, "job": job.id}


def args_of(user_id: int, how: str) -> object:
    """Return the args of a job whose worker ends as `how` says."""
    return GreetAsync(user_id) if how == "async" else Greet(user_id, how)


GREETED = {"commit", "twice", "savepoint", "raise after commit", "async"}
STATES = {"raise": "available", "raise after commit": "available"}


def check(shop: Shop, session: Session, how: str) -> None:
    """Work a job for an uncommitted user, and check its effects."""
    user = User(name="Ada")
    session.add(user)
    session.flush()
    user_id = user.id
    args = args_of(user_id, how)
    worked = work_one(session, client_of(shop.app), args, reraise=False)
    assert isinstance(worked.error, OSError | None)
    assert worked.state == STATES.get(how, "completed"), how
    assert session.get_one(User, user_id).greeted_by == (1 if how in GREETED else None)
    assert require_inserted(session, args).attempt == 1
    assert shop.greeted(user_id) is None, f"committed: {how}"


def test_a_worker_is_in_the_applications_test(shop: Shop) -> None:
    """With the fixture, a worker sees the test's rows in its own session, and commits nothing."""
    for how in HOWS:
        with rolled_back(shop.app) as session:
            check(shop, session, how)
            check(shop, session, how)
    assert shop.counts() == (0, {})


def test_a_worker_is_in_the_transaction_of_any_session(shop: Shop) -> None:
    """With a session that the test made itself, a worker also commits nothing."""
    engine = client_of(shop.app).engine
    for how in HOWS:
        with engine_rolled_back(engine) as session:
            check(shop, session, how)
        with engine.connect() as connection, connection.begin() as transaction:
            with Session(connection) as session:
                check(shop, session, how)
            transaction.rollback()
        with Session(engine) as session:  # never committed
            check(shop, session, how)
        with shop.app.app_context():
            check(shop, shop.session(), how)
            shop.session().rollback()
    assert shop.counts() == (0, {})


def test_views_and_workers_are_in_one_transaction(shop: Shop) -> None:
    """A view's commit is visible to the test and its workers only, and undone."""
    http = shop.app.test_client()
    with rolled_back(shop.app) as session:
        client = client_of(shop.app)
        answer = http.post("/signup", data={"name": "Ada"}).json
        require_inserted(session, Greet(answer["id"], "commit"))
        assert http.post("/signup", data={"name": "fail"}).status_code == 500
        assert len(verbs.list_jobs(session).jobs) == 1, "a job of a view that failed"
        assert [each.state for each in drain(session, client)] == ["completed"]
        assert session.get_one(User, answer["id"]).greeted_by == 1
        with shop.app.app_context():
            assert shop.session().get(User, answer["id"]).greeted_by == 1
        assert shop.counts() == (0, {})
    assert shop.counts() == (0, {})
    with shop.app.app_context():  # as before
        require_not_inserted(shop.session(), Greet)
        shop.session().add(User(name="Bob"))
        shop.session().commit()
    assert shop.counts() == (1, {})


def test_a_session_that_never_commits_leaves_the_test_its_own(shop: Shop) -> None:
    """A test may work a job while the session of its app context is only flushed."""
    with rolled_back(shop.app) as session:
        with shop.app.app_context():
            user = User(name="Ada")
            shop.session().add(user)
            shop.session().flush()
            assert work_one(session, client_of(shop.app), Greet(user.id)).state == "completed"
        require_not_inserted(session, Greet)
    assert shop.counts() == (0, {})


def test_jobs_of_others_are_as_they_were(shop: Shop) -> None:
    """After the test, jobs that waited in the database are unchanged and had no effects."""
    with shop.app.app_context():
        user = User(name="Real")
        shop.session().add(user)
        shop.session().commit()
        user_id = user.id
    client = client_of(shop.app)
    verbs.insert_many(shop.engine, [Greet(user_id, "commit"), Greet(user_id, "raise")])
    with rolled_back(shop.app) as session:
        assert drain(session, client) == []
        for job in verbs.list_jobs(shop.engine).jobs:
            work_one(session, client, job, reraise=False)
        assert session.get_one(User, user_id).greeted_by == 1
    assert shop.greeted(user_id) is False
    assert shop.counts() == (1, {"available 0": 2})
    with shop.app.app_context():
        assert drain(shop.session(), client) == []


def test_the_session_of_the_test_outlives_the_worker(shop: Shop) -> None:
    """A test in its own app context can go on with its session after draining an Engine."""
    client = client_of(shop.app)
    with shop.app.app_context():
        user = User(name="Ada")
        shop.session().add(user)
        shop.session().flush()
        before = shop.session()
        session = before() if isinstance(before, scoped_session) else before
        drain(client.engine, client)
        client.insert(client.engine, Greet(0, "commit"))
        assert [each.state for each in drain(client.engine, client, reraise=False)] == ["available"]
        now = shop.session()
        assert (now() if isinstance(now, scoped_session) else now) is session
        assert session.get(User, user.id) is user
        shop.session().rollback()
    assert shop.counts()[0] == 0

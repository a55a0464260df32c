"""Flask: riverrun never ends the application's session, whatever its scope."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, appcontext_popped, current_app
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy import Engine, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import scoped_session, sessionmaker

from ext.apps.flask_shop import Base, Greet, User
from riverrun import JobCompleted, QueueConfig, Workers, verbs
from riverrun.ext.flask import Riverrun, client_of
from waiting import DEADLINE_S

SCOPES: dict[str, Callable[[], object] | None] = {
    "app context": None,
    "thread": threading.get_ident,
    "process": lambda: 0,
}


@pytest.fixture
def tables(schema_engine: Engine) -> Engine:
    """The shop's tables, next to ours."""
    Base.metadata.create_all(schema_engine)
    return schema_engine


def shop(url: str, scope: str = "app context", *, lite: bool = False) -> tuple[Flask, Any, Any]:
    """Return an application, its database extension and its queue."""
    app = Flask("shop")
    if lite:
        app.config["SQLALCHEMY_ENGINES"] = {"default": url}
        db: Any = Lite(app)
    else:
        app.config["SQLALCHEMY_DATABASE_URI"] = url
        chosen = SCOPES[scope]
        db = SQLAlchemy(
            app,
            model_class=Base,
            session_options={} if chosen is None else {"scopefunc": chosen},
        )
    queue = Riverrun(app, workers=Workers())

    @queue.worker
    def greet(args: Greet) -> None:
        db.session.get_one(User, args.user_id).greeted_by = 1
        db.session.commit()

    @app.post("/signup")
    def signup() -> dict[str, int]:
        return {"id": sign_up(db, queue)}

    @app.cli.command("signup")
    def command() -> None:
        sign_up(db, queue)

    return app, db, queue


def sign_up(db: Any, queue: Riverrun) -> int:
    """Write a user and a job, in one transaction of the application's session."""
    user = User(name="Ada")
    db.session.add(user)
    db.session.flush()
    queue.insert(Greet(user.id))
    db.session.commit()
    return user.id


def end(db: Any, app: Flask) -> None:
    """Dispose of the engines."""
    with app.app_context():
        db.engine.dispose()
    client_of(app).engine.dispose()


def users_and_jobs(engine: Engine) -> tuple[list[int], list[int]]:
    """Return the committed users, and the users of committed jobs."""
    with engine.connect() as connection:
        users = list(connection.scalars(select(User.id).order_by(User.id)))
    return users, sorted(job.args["user_id"] for job in verbs.list_jobs(engine).jobs)


@pytest.mark.parametrize("how", ["request", "command", "context", "nested", "thread"])
@pytest.mark.parametrize("scope", [*SCOPES, "lite"])
def test_the_first_insert_leaves_the_transaction_alone(
    tables: Engine, schema_url: str, scope: str, how: str
) -> None:
    """The first insert makes the client, and does not end the transaction in progress."""
    app, db, queue = shop(schema_url, scope, lite=scope == "lite")
    popped: list[Flask] = []
    with appcontext_popped.connected_to(lambda sender, **_: popped.append(sender), app):
        match how:
            case "request":
                app.test_client().post("/signup")
            case "command":
                result = app.test_cli_runner().invoke(args=["signup"])
                assert result.exception is None
            case "context":
                with app.app_context():
                    sign_up(db, queue)
            case "nested":
                with app.app_context(), Flask("other").app_context(), app.app_context():
                    sign_up(db, queue)
            case "thread":
                thread = threading.Thread(target=lambda: app.test_client().post("/signup"))
                thread.start()
                thread.join()
    assert len(popped) == (2 if how == "nested" else 1), "an app context of riverrun's own"
    users, jobs = users_and_jobs(tables)
    assert len(users) == 1
    assert jobs == users
    end(db, app)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_client_that_is_asked_for_from_outside(
    tables: Engine, schema_url: str, scope: str
) -> None:
    """Making a client within another application's context leaves every session alone."""
    app, db, _ = shop(schema_url, scope)
    other, _, _ = shop(schema_url, scope)
    with app.app_context():
        db.session.add(User(name="Ada"))
        db.session.flush()
        with other.app_context():
            assert client_of(app).engine is not client_of(other).engine
            assert current_app.name == "shop"
        if scope == "app context":
            db.session.commit()
        client = client_of(app)
    assert client_of(app) is client
    end(db, app)


def test_a_session_that_a_test_has_replaced(tables: Engine, schema_url: str) -> None:
    """The transaction of a session put in place of `db.session` goes on after the first insert."""
    app, db, queue = shop(schema_url)
    with tables.connect() as connection, connection.begin() as transaction:
        factory = sessionmaker(connection, join_transaction_mode="create_savepoint")
        db.session = scoped_session(factory, scopefunc=lambda: 0)
        with app.app_context():
            user = User(name="Ada")
            db.session.add(user)
            db.session.flush()
            job = queue.insert(Greet(user.id)).job
            assert db.session.get(User, user.id) is user
            assert db.session().in_transaction()
            assert verbs.get(db.session, job.id).args == {"user_id": user.id}
        transaction.rollback()
    assert users_and_jobs(tables) == ([], [])
    end(db, app)


def test_async_sessions_are_closed_in_their_loop(tables: Engine, schema_url: str) -> None:
    """`async def` workers have Flask-SQLAlchemy-Lite's AsyncSession, closed when each returns."""
    app = Flask("shop")
    app.config["SQLALCHEMY_ENGINES"] = {"default": schema_url}
    app.config["SQLALCHEMY_ASYNC_ENGINES"] = {"default": schema_url}
    db = Lite(app)
    queue = Riverrun(app, queues={"default": QueueConfig(max_workers=1)})
    used: list[AsyncSession] = []

    @queue.worker
    async def greet(args: Greet) -> None:
        used.append(db.async_session)
        (await db.async_session.get_one(User, args.user_id)).greeted_by = 1
        await db.async_session.commit()
        await db.async_session.get_one(User, args.user_id)  # leaves a transaction open
        if args.user_id == 2:
            await db.async_session.close()  # or its connection would outlive the engine
            await db.async_engine.dispose()

    client = client_of(app)
    with app.app_context():
        assert [sign_up(db, queue), sign_up(db, queue)] == [1, 2]
    with client.subscribe(JobCompleted) as events, client:
        for _ in range(2):
            events.get(timeout=DEADLINE_S)
    assert len(set(map(id, used))) == 2
    assert not any(each.sync_session.in_transaction() for each in used)
    with tables.connect() as connection:
        assert connection.scalars(select(User.greeted_by)).all() == [1, 1]
    client.engine.dispose()

"""Workers that take a session, in applications: it is made as the application's are."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import zope.sqlalchemy
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from pyramid.config import Configurator
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ext.apps.flask_shop import Base, User
from riverrun import Client, JobArgs, Workers
from riverrun.events import JobCompleted, JobEvent
from riverrun.ext import flask, pyramid
from riverrun.testing import work_one
from waiting import DEADLINE_S


@attrs.frozen
class Greet(JobArgs, kind="greet_in_session"):
    how: str = "return"


def worker(seen: list[Session]) -> Callable[..., None]:
    """Return a worker that writes in its session, and notes that."""

    def greet(args: Greet, session: Session) -> None:
        seen.append(session)
        session.add(User(name="Ada"))
        if args.how == "commit":
            session.commit()

    return greet


def names(engine: Engine) -> list[str]:
    """Return what another connection sees."""
    with Session(engine) as session:
        return [user.name for user in session.query(User)]


def check(client: Client, engine: Engine, undone: Callable[[], Any]) -> None:
    """Work in tests, where all is undone, and for real."""
    for how in ("return", "commit"):
        with undone() as session:
            assert work_one(session, client, Greet(how)).state == "completed"
            assert [user.name for user in session.query(User)] == ["Ada"]
        assert names(engine) == []
    events = client.subscribe(JobEvent)
    client.insert(engine, Greet())
    with client:
        ended = events.get(timeout=DEADLINE_S)
    assert (type(ended), names(engine)) == (JobCompleted, ["Ada"]), ended.error


@pytest.mark.parametrize("sort", ["Flask-SQLAlchemy", "lite", "plain"])
def test_flask(schema_engine: Engine, schema_url: str, sort: str) -> None:
    """In Flask it is of the class of the application's sessions; in a test it is undone."""
    Base.metadata.create_all(schema_engine)
    app = Flask("shop")
    seen: list[Session] = []
    match sort:
        case "lite":
            app.config["SQLALCHEMY_ENGINES"] = {"default": schema_url}
            queue = flask.Riverrun()
            db: Any = Lite(app)
            queue.init_app(app)
            own: Any = lambda: type(db.session)  # noqa: E731
        case "plain":
            engine = create_engine(schema_url)
            sessions = scoped_session(sessionmaker(engine, info={"own": True}))
            queue = flask.Riverrun(app, engine=engine, session=lambda: sessions)
            own = lambda: sessions.session_factory.class_  # type: ignore[attr-defined]  # noqa: E731
        case _:
            app.config["SQLALCHEMY_DATABASE_URI"] = schema_url
            db = SQLAlchemy(app, model_class=Base)
            queue = flask.Riverrun(app)
            own = lambda: db.session.session_factory.class_  # noqa: E731
    queue.worker(worker(seen))
    check(flask.client_of(app), schema_engine, lambda: flask.rolled_back(app))
    with app.app_context():
        assert isinstance(seen[-1], own())
        flask.client_of(app).engine.dispose()


@pytest.mark.parametrize("joined", [False, True], ids=["its own commits", "zope.sqlalchemy"])
def test_pyramid(schema_engine: Engine, schema_url: str, joined: bool) -> None:
    """In Pyramid it is made by dbsession_factory, unless a transaction manager commits that."""
    Base.metadata.create_all(schema_engine)
    workers = Workers()
    seen: list[Session] = []
    workers.register(worker(seen))
    engine = create_engine(schema_url)
    factory = sessionmaker(engine)
    if joined:
        zope.sqlalchemy.register(factory)
    config = Configurator(settings={"sqlalchemy.url": schema_url})
    config.registry["dbsession_factory"] = factory
    config.include("riverrun.ext.pyramid")
    config.set_riverrun_workers(workers)
    config.commit()
    client = pyramid.client_of(config.registry)
    events = client.subscribe(JobEvent)
    client.insert(schema_engine, Greet())
    with client:
        ended = events.get(timeout=DEADLINE_S)
    assert (type(ended), names(schema_engine)) == (JobCompleted, ["Ada"]), ended.error
    assert isinstance(seen[-1], factory.class_) is not joined
    engine.dispose()

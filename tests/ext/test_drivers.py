"""Applications with another driver than psycopg 3: the client has an engine of its own."""

import logging
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from pyramid.config import Configurator
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from ext.apps.flask_shop import Base, Greet, User
from riverrun import Client, JobCompleted, Workers, verbs
from riverrun.errors import ClientNotReady, UnsupportedDatabase
from riverrun.ext.flask import Riverrun, client_of, rolled_back
from riverrun.ext.pyramid import client_of as pyramid_client_of
from riverrun.migrations import migrate
from riverrun.testing import drain, require_inserted
from waiting import DEADLINE_S


@pytest.fixture
def psycopg2_url(schema_url: str) -> str:
    """The URL of the test's schema, in the form that most applications use."""
    url = make_url(schema_url).set(drivername="postgresql+psycopg2")
    return url.render_as_string(hide_password=False)


def test_flask_on_psycopg2(
    psycopg2_url: str, schema_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A session on psycopg2 inserts jobs, and a client of psycopg 3 works them, and says so."""
    Base.metadata.create_all(schema_engine)
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = psycopg2_url
    db = SQLAlchemy(app, model_class=Base)
    queue = Riverrun(app)

    @queue.worker
    def greet(args: Greet) -> None:
        assert db.engine.driver == "psycopg2"
        db.session.get_one(User, args.user_id).greeted_by = 1
        db.session.commit()

    caplog.set_level(logging.INFO, "riverrun")
    client = client_of(app)
    assert client.engine.driver == "psycopg"
    assert "made an engine of psycopg 3" in caplog.text
    with rolled_back(app) as session:
        user = User(name="Ada")
        session.add(user)
        session.commit()
        client.insert(session, Greet(user.id))
        assert [each.state for each in drain(session, client)] == ["completed"]
        assert user.greeted_by == 1
    assert not verbs.list_jobs(schema_engine).jobs
    with app.app_context():
        user = User(name="Ada")
        db.session.add(user)
        db.session.flush()
        queue.insert(Greet(user.id))
        db.session.rollback()
        assert not verbs.list_jobs(schema_engine).jobs
        user = User(name="Ada")
        db.session.add(user)
        db.session.flush()
        queue.insert(Greet(user.id))
        db.session.commit()
        with client.subscribe(JobCompleted) as events, client:
            events.get(timeout=DEADLINE_S)
        db.engine.dispose()
    client.engine.dispose()
    with schema_engine.connect() as connection:
        assert connection.scalar(text("SELECT greeted_by FROM shop_user")) == 1


def test_flask_on_asyncpg(schema_url: str) -> None:
    """An application that only has an AsyncEngine gets a client too."""
    app = Flask("shop")
    url = make_url(schema_url).set(drivername="postgresql+asyncpg", query={"ssl": "disable"})
    app.config["SQLALCHEMY_ASYNC_ENGINES"] = {"default": url}
    Lite(app)
    Riverrun(app)
    assert client_of(app).engine.url.query == {"sslmode": "disable"}
    assert client_of(app).engine.driver == "psycopg"


@pytest.mark.parametrize("how", ["factory", "url", "bare"])
def test_pyramid_on_psycopg2(psycopg2_url: str, how: str) -> None:
    """The client gets a psycopg 3 engine beside that of the registry's factory or the settings."""
    settings: dict[str, Any] = {}
    if how != "factory":
        url = make_url(psycopg2_url)
        settings = {"sqlalchemy.url": psycopg2_url, "sqlalchemy.executemany_mode": "values_only"}
        if how == "bare":
            url = url.set(drivername="postgresql")
            settings = {"sqlalchemy.url": url.render_as_string(hide_password=False)}
            settings["sqlalchemy.pool_size"] = "3"
    with Configurator(settings=settings) as config:
        config.include("riverrun.ext.pyramid")
        if how == "factory":
            config.registry["dbsession_factory"] = sessionmaker(create_engine(psycopg2_url))
    client = pyramid_client_of(config.registry)
    assert client.engine.driver == "psycopg"
    job = client.insert(client.engine, Greet(1)).job
    other = create_engine(psycopg2_url)
    with Session(other) as session:
        client.insert(session, Greet(2))
        session.commit()
    assert [each.id for each in verbs.list_jobs(client.engine).jobs] == [job.id, job.id + 1]
    if how == "bare":
        assert client.engine.pool.size() == 3  # type: ignore[attr-defined]
    other.dispose()
    client.engine.dispose()


def test_a_client_says_what_to_do_about_another_driver(psycopg2_url: str) -> None:
    """A client refuses an engine of another driver, and the error says what to do."""
    with pytest.raises(UnsupportedDatabase, match=r"Client\.from_url.*stay on psycopg2"):
        Client(create_engine(psycopg2_url))
    asyncpg = create_async_engine(make_url(psycopg2_url).set(drivername="postgresql+asyncpg"))
    for engine in (asyncpg, asyncpg.sync_engine):
        with pytest.raises(TypeError, match=r"Client\.from_url"):
            Client(engine)  # type: ignore[arg-type]
    assert Client.from_url(psycopg2_url, max_attempts=3).engine.driver == "psycopg"


def test_a_named_bind(schema_url: str, schema_engine: Engine, empty_database: Engine) -> None:
    """`RIVERRUN_BIND` names the jobs' database; inserts join the session's transaction there."""
    Base.metadata.create_all(schema_engine)
    migrate(empty_database)
    jobs_url = empty_database.url.render_as_string(hide_password=False)
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = schema_url
    app.config["SQLALCHEMY_BINDS"] = {"jobs": jobs_url}
    app.config["RIVERRUN_BIND"] = "jobs"
    db = SQLAlchemy(app, model_class=Base)
    queue = Riverrun(app, workers=Workers(), skip_unknown_job_check=True)

    @queue.worker
    def greet(args: Greet) -> None:
        db.session.get_one(User, args.user_id).greeted_by = 1
        db.session.commit()

    def sign_up() -> None:
        user = User(name="Ada")
        db.session.add(user)
        db.session.flush()
        queue.insert(Greet(user.id))

    with app.app_context():
        assert client_of(app).engine is db.engines["jobs"]
        sign_up()
        db.session.rollback()
        sign_up()
        db.session.commit()
        require_inserted(empty_database, Greet)
        assert not verbs.list_jobs(schema_engine).jobs
        assert db.session.query(User).count() == 1
        db.session.rollback()
    with rolled_back(app) as session:
        with app.app_context():
            sign_up()
            db.session.commit()
        assert len(verbs.list_jobs(session.connection(bind_arguments=jobs_bind(app))).jobs) == 2
    assert len(verbs.list_jobs(empty_database).jobs) == 1
    with schema_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM shop_user")) == 1
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


def jobs_bind(app: Flask) -> dict[str, Engine]:
    """Return the bind arguments with which a session uses the database of the jobs."""
    return {"bind": client_of(app).engine}


def test_binds_without_a_default(schema_url: str) -> None:
    """If there is no such database, the error lists the existing ones."""

    def shop(setting: str | None) -> tuple[Flask, Riverrun]:
        app = Flask("shop")
        app.config["SQLALCHEMY_BINDS"] = {"jobs": schema_url, "other": schema_url}
        app.config["RIVERRUN_BIND"] = setting
        SQLAlchemy(app, model_class=Base)
        return app, Riverrun(app)

    for setting, problem in ((None, "no default database"), ("job", "no database 'job'")):
        app, _ = shop(setting)
        with pytest.raises(ClientNotReady, match=rf"{problem}; set RIVERRUN_BIND to one of.*jobs"):
            client_of(app)
    app, queue = shop("other")
    with app.app_context():
        assert queue.insert(Greet(1)).job.kind == "greet"
        app.extensions["sqlalchemy"].session.rollback()
        for engine in app.extensions["sqlalchemy"].engines.values():
            engine.dispose()

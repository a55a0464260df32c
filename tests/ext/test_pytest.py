"""The pytest plugin, loaded by its entry point in a user's test run."""

import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import attrs
from sqlalchemy import create_engine
from riverrun import Client, JobArgs, Workers

workers = Workers()

@attrs.frozen
class Greet(JobArgs, kind="greet"):
    name: str

@workers.register
def greet(args: Greet) -> None:
    print("hello", args.name)

client = Client(create_engine({url!r}), schema={schema!r}, workers=workers)

def sign_up(session, name):
    client.insert(session, Greet(name))
    session.commit()
"""
TESTS = """
from shop import Greet, client, sign_up

def test_inserts(riverrun_session, riverrun_jobs):
    sign_up(riverrun_session, "Ada")
    riverrun_jobs.require_inserted(Greet("Ada"))
    assert [each.state for each in riverrun_jobs.drain()] == ["completed"]

def test_nothing_is_left(riverrun_jobs):
    riverrun_jobs.require_not_inserted(Greet)

def test_fails(riverrun_jobs):
    riverrun_jobs.require_inserted(Greet)
"""


FLASK = """
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from riverrun import InsertOpts
from riverrun.ext.flask import Riverrun
from shop import Greet, workers

db = SQLAlchemy()
riverrun = Riverrun(workers=workers, schema={schema!r})

def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = {url!r}
    db.init_app(app)
    riverrun.init_app(app)

    @app.post("/")
    def view():
        riverrun.insert(Greet("Ada"))
        db.session.commit()
        return ""

    return app

@pytest.fixture
def riverrun_app():
    return create_app()

def test_a_view(riverrun_app, riverrun_jobs):
    riverrun_app.test_client().post("/")
    riverrun_jobs.require_inserted(Greet("Ada"))
    assert [each.state for each in riverrun_jobs.drain()] == ["completed"]

def test_nothing_is_left(riverrun_jobs):
    riverrun_jobs.require_not_inserted(Greet)
"""
PYRAMID = """
import pytest
import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from shop import Greet, workers

def view(request):
    request.insert_job(Greet("Ada"))
    return {{}}

def get_session(request):
    session = request.registry["dbsession_factory"]()
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session

@pytest.fixture
def riverrun_app():
    settings = {{
        "riverrun.schema": {schema!r}, "tm.manager_hook": "pyramid_tm.explicit_manager"
    }}
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("riverrun.ext.pyramid")
        config.set_riverrun_workers(workers)
        config.registry["dbsession_factory"] = sessionmaker(bind=create_engine({url!r}))
        config.add_request_method(get_session, "dbsession", reify=True)
        config.add_route("view", "/")
        config.add_view(view, route_name="view", renderer="json")
        return config.make_wsgi_app()

def test_a_view(riverrun_app, riverrun_jobs):
    assert Request.blank("/").get_response(riverrun_app).status_int == 200
    riverrun_jobs.require_inserted(Greet("Ada"))
    assert [each.state for each in riverrun_jobs.drain()] == ["completed"]

def test_nothing_is_left(riverrun_jobs):
    riverrun_jobs.require_not_inserted(Greet)
"""
ASYNC = """
import attrs
import pytest
{imports}
from sqlalchemy.ext.asyncio import create_async_engine
from riverrun.testing import rolled_back_async
from shop import Greet, client

{fixture}
async def riverrun_async_session({backend}):
    engine = create_async_engine(client.engine.url)
    async with rolled_back_async(engine) as session:
        yield session
    await engine.dispose()

{mark}
async def test_inserts(riverrun_async_session, riverrun_async_jobs):
    await client.insert_async(riverrun_async_session, Greet("Ada"))
    await riverrun_async_session.commit()
    job = await riverrun_async_jobs.require_inserted(Greet("Ada"), queue="default")
    await riverrun_async_jobs.require_many_inserted([Greet])
    assert [each.job.id for each in await riverrun_async_jobs.drain()] == [job.id]
    assert (await riverrun_async_jobs.work_one(Greet("Bob"))).state == "completed"

{mark}
async def test_nothing_is_left(riverrun_async_jobs):
    await riverrun_async_jobs.require_not_inserted(Greet)
"""
RUNNERS = {
    "asyncio": {
        "imports": "import pytest_asyncio",
        "fixture": "@pytest_asyncio.fixture",
        "mark": "@pytest.mark.asyncio",
        "backend": "",
    },
    "anyio": {
        "imports": "",
        "fixture": "@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n\n@pytest.fixture",
        "mark": "@pytest.mark.anyio",
        "backend": "anyio_backend",
    },
}


def run(folder: Path, *arguments: str) -> str:
    """Run pytest in `folder` and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_fixtures_of_a_users_tests(tmp_path: Path, database_url: str, schema: str) -> None:
    """With the setting, tests find and drain jobs, all is undone, and failures say why."""
    (tmp_path / "shop.py").write_text(APP.format(url=database_url, schema=schema))
    (tmp_path / "test_shop.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nriverrun_client = shop:client\n")
    output = run(tmp_path)
    assert "1 failed, 2 passed" in output, output
    assert "expected exactly one job 'greet'; found 0; there is none of the kind" in output


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_fixtures_of_async_tests(
    tmp_path: Path, database_url: str, schema: str, runner: str
) -> None:
    """With pytest-asyncio and anyio, tests find and drain jobs in an AsyncSession."""
    (tmp_path / "shop.py").write_text(APP.format(url=database_url, schema=schema))
    (tmp_path / "test_shop.py").write_text(ASYNC.format(**RUNNERS[runner]))
    (tmp_path / "pytest.ini").write_text("[pytest]\nriverrun_client = shop:client\n")
    output = run(tmp_path)
    assert "2 passed" in output, output


@pytest.mark.parametrize("tests", [FLASK, PYRAMID], ids=["flask", "pyramid"])
def test_the_fixtures_of_an_application(
    tmp_path: Path, database_url: str, schema: str, tests: str
) -> None:
    """The fixture `riverrun_app` supplies the client, and its sessions join the test."""
    (tmp_path / "shop.py").write_text(APP.format(url=database_url, schema=schema))
    (tmp_path / "test_shop.py").write_text(tests.format(url=database_url, schema=schema))
    output = run(tmp_path, "-Wignore::UserWarning", "-Wignore::DeprecationWarning")
    assert "2 passed" in output, output


def test_says_what_is_no_application(tmp_path: Path) -> None:
    """An application without riverrun is refused with one line."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.fixture\ndef riverrun_app(): return object()\n"
        "def test_jobs(riverrun_jobs): pass\n"
    )
    assert "expected an application in Flask or Pyramid" in run(tmp_path)


def test_says_that_no_async_session_is_defined(
    tmp_path: Path, database_url: str, schema: str
) -> None:
    """Without an AsyncSession, the error says which fixture to define."""
    (tmp_path / "shop.py").write_text(APP.format(url=database_url, schema=schema))
    (tmp_path / "test_it.py").write_text("def test_jobs(riverrun_async_jobs): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nriverrun_client = shop:client\n")
    assert "define a fixture of that name" in run(tmp_path)


def test_says_that_no_client_is_named(tmp_path: Path) -> None:
    """Without a client, the error says how to name one; other tests still run."""
    (tmp_path / "test_it.py").write_text(
        "def test_jobs(riverrun_jobs): pass\ndef test_other(): pass\n"
    )
    output = run(tmp_path)
    assert "1 passed, 1 error" in output, output
    assert "set it to module:attribute, or define a fixture of that name" in output

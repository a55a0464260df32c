"""Flask: a shop under gunicorn and on the command line, and the extension's own promises."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, text

from ext.apps.flask_shop import Base, Greet, Start, create_app
from ext.conftest import Site
from ext.marks import needs_plugins
from riverrun import QueueConfig, Workers, verbs
from riverrun.errors import ClientNotReady, InvalidOption
from riverrun.ext.alembic import _database, _wanted
from riverrun.ext.flask import Riverrun
from riverrun.migrations import migrate
from riverrun.testing import drain, require_inserted, require_not_inserted
from waiting import until

VARIANTS = ("sqlalchemy", "lite", "plain")
FLASK = ("flask", "--app", "flask_shop")


@pytest.fixture
def tables(schema_engine: Engine) -> Engine:
    """The shop's tables, next to ours."""
    Base.metadata.create_all(schema_engine)
    return schema_engine


def gunicorn(site: Site, *options: str) -> list[str]:
    """Return the command that serves the shop."""
    bind = f"127.0.0.1:{site.port}"
    return ["gunicorn", "--bind", bind, "--workers", "2", *options, "flask_shop:create_app()"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_shop_over_http(site: Site, tables: Engine, variant: str) -> None:
    """Jobs join the view's transaction; workers have an app context and a session of their own."""
    environment = {"SHOP_VARIANT": variant}
    site.serve(*gunicorn(site), environment=environment)
    status, answer = site.post("/signup", {"name": "Ada"})
    assert status == 200, site.logs()
    assert site.post("/signup", {"name": "Bob", "fail": "yes"})[0] == 500
    assert site.post("/signup", {"name": "twice"})[0] == 200
    assert len(site.post("/many", {})[1]["job_ids"]) == 2
    site.start(*FLASK, "riverrun", "work", environment=environment)
    until(lambda: all(by for _, by in site.users()), "greetings")
    assert sorted(name for name, _ in site.users()) == ["Ada", "twice"]
    job = verbs.get(tables, answer["job_id"])
    assert job.args == {"user_id": answer["user_id"]}
    until(lambda: not verbs.count_jobs(tables), "the end of every job, the second attempt's too")


def test_survives_a_fork(site: Site, tables: Engine) -> None:
    """With gunicorn's preload, each child has its own connections and announcer."""
    site.serve(*gunicorn(site, "--preload"), environment={"SHOP_EARLY": "1"})
    site.start(*FLASK, "riverrun", "work", environment={"RIVERRUN_LOG_LEVEL": "warning"})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: site.post("/signup", {"name": str(n)}), range(60)))
    assert [status for status, _ in answers] == [200] * 60, site.logs()
    assert len({answer["pid"] for _, answer in answers}) == 2
    until(lambda: len(site.users()) == 60 and all(by for _, by in site.users()), "greetings")


def test_the_command_line(site: Site, tables: Engine) -> None:
    """`flask riverrun` has the commands of `riverrun`, for the application's client."""
    assert "the schema is at the newest version" in site.run(
        *FLASK, "riverrun", "migrate", "validate"
    )
    # Before there is a job: a job without a client is soon unhealthy.
    assert json.loads(site.run(*FLASK, "riverrun", "health", "--json"))["available"] == 0
    inserted = json.loads(site.run(*FLASK, "riverrun", "insert", "start", "--json"))
    listed = site.run(*FLASK, "riverrun", "jobs", "list", "--json")
    assert json.loads(listed)["id"] == inserted["id"]
    assert "--state" in site.run(*FLASK, "riverrun", "jobs", "list", "-h")
    assert "--read-only" in site.run(*FLASK, "riverrun", "dashboard", "-h")


@needs_plugins
def test_flask_migrate_picks_the_schema_up(
    empty_database: Engine, tmp_path: Path, site: Site
) -> None:
    """`flask db migrate` proposes our tables and the host's; `flask db upgrade` creates them."""
    (tmp_path / "host.py").write_text(
        "import os\n"
        "from flask import Flask\n"
        "from flask_migrate import Migrate\n"
        "from flask_sqlalchemy import SQLAlchemy\n"
        "from flask_shop import Base\n"
        "app = Flask(__name__)\n"
        "app.config['SQLALCHEMY_DATABASE_URI'] = os.environ['DATABASE_URL']\n"
        "db = SQLAlchemy(app, model_class=Base)\n"
        "Migrate(app, db, directory=os.environ['CHAIN'], riverrun=True)\n"
    )
    chain = tmp_path / "chain"
    environment = {
        "DATABASE_URL": empty_database.url.render_as_string(hide_password=False),
        "CHAIN": str(chain),
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parent / 'apps'}",
    }
    db = ("flask", "--app", "host", "db")
    site.run(*db, "init", environment=environment)
    site.run(*db, "migrate", environment=environment)
    (revision,) = (chain / "versions").glob("*.py")
    assert re.search(r"op\.riverrun_migrate\(\d, \d, frm=\(0, 0\)\)", revision.read_text())
    site.run(*db, "upgrade", environment=environment)
    site.run(*db, "check", environment=environment)
    with empty_database.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('river_job')")) == "river_job"


@needs_plugins
def test_flask_migrate_installs_in_one_database_of_several(
    empty_database: Engine, tmp_path: Path, site: Site
) -> None:
    """With `--multidb`, only the database that is named gets the tables."""
    with empty_database.begin() as connection:
        connection.execute(text("CREATE SCHEMA other"))
    (tmp_path / "host.py").write_text(
        "import os\n"
        "from flask import Flask\n"
        "from flask_migrate import Migrate\n"
        "from flask_sqlalchemy import SQLAlchemy\n"
        "from flask_shop import Base\n"
        "app = Flask(__name__)\n"
        "url = os.environ['DATABASE_URL']\n"
        "app.config['SQLALCHEMY_DATABASE_URI'] = url + '&options=-csearch_path%3Dother'\n"
        "app.config['SQLALCHEMY_BINDS'] = {'jobs': url}\n"
        "db = SQLAlchemy(app, model_class=Base)\n"
        "Migrate(app, db, directory=os.environ['CHAIN'], riverrun={'jobs': True})\n"
    )
    url = empty_database.url.update_query_dict({"application_name": "host"})
    chain = tmp_path / "chain"
    environment = {
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "CHAIN": str(chain),
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parent / 'apps'}",
    }
    db = ("flask", "--app", "host", "db")
    site.run(*db, "init", "--multidb", environment=environment)
    site.run(*db, "migrate", environment=environment)
    site.run(*db, "upgrade", environment=environment)
    with empty_database.connect() as connection:
        found = connection.execute(
            text(
                "SELECT table_schema, table_name FROM information_schema.tables"
                " WHERE table_name IN ('river_job', 'shop_user') ORDER BY table_name"
            )
        ).all()
    assert [tuple(row) for row in found] == [("public", "river_job"), ("other", "shop_user")]


@pytest.mark.parametrize(
    ("option", "token", "schemas"),
    [
        (True, "upgrades", [None]),
        (True, "_upgrades", [None]),
        (True, "jobs_upgrades", []),
        ("own", "jobs_upgrades", []),
        ({"jobs": True}, "jobs_upgrades", [None]),
        ({"jobs": ["own"]}, "jobs_upgrades", ["own"]),
        ({"jobs": True}, "_upgrades", []),
        ({None: True}, "_upgrades", [None]),
        ({"": "own"}, "upgrades", ["own"]),
        (None, "jobs_upgrades", []),
    ],
)
def test_which_database_gets_the_tables(option: object, token: str, schemas: list[object]) -> None:
    """With several databases, only the default one or the one named gets the tables."""
    assert list(_wanted(option, _database({"upgrade_token": token}))) == schemas


@pytest.fixture
def shop(tables: Engine, schema_url: str, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The shop in this process."""
    monkeypatch.setenv("DATABASE_URL", schema_url)
    return create_app("plain")


def test_its_jobs_can_be_tested(shop: Flask, tables: Engine) -> None:
    """`riverrun.testing` finds and works jobs that a test client's requests insert."""
    http = shop.test_client()
    answer = http.post("/signup", data={"name": "Ada"}).json
    require_inserted(tables, Greet(answer["user_id"]))
    shop.testing = True  # so that errors of views reach the test
    with pytest.raises(ValueError, match="after the insert"):
        http.post("/signup", data={"name": "Bob", "fail": "yes"})
    client = shop.extensions["riverrun"].client
    assert [each.state for each in drain(tables, client)] == ["completed"]
    assert http.get("/users").json == [["Ada", os.getpid()]]
    require_not_inserted(tables, Start)
    client.engine.dispose()


def test_several_apps_in_one_process(schema_url: str, database_url: str) -> None:
    """One extension can serve several applications, each with its own client and settings."""
    jobs = Riverrun(max_attempts=7)
    apps = [Flask("one"), Flask("two")]
    for app, url in zip(apps, (schema_url, database_url), strict=True):
        app.config.update(RIVERRUN_DATABASE_URL=url, RIVERRUN_QUEUES={app.name: 3})
        jobs.init_app(app)
    clients = []
    for app in apps:
        with app.app_context():
            clients.append(jobs.client)
            assert jobs.client is clients[-1]
    assert clients[0] is not clients[1]
    assert [dict(client.queues.configs) for client in clients] == [
        {"one": QueueConfig(max_workers=3)},
        {"two": QueueConfig(max_workers=3)},
    ]


def test_two_apps_on_two_databases(
    schema_url: str, schema_engine: Engine, empty_database: Engine
) -> None:
    """Each application's jobs are inserted and worked in its own database and context."""
    migrate(empty_database)
    platform = empty_database.url.set(drivername="postgres")
    worked: list[str] = []
    jobs = Riverrun()

    @jobs.worker
    def start(args: Start) -> None:
        worked.append(current_app.name)

    apps = [Flask("one"), Flask("two")]
    for app, url in zip(apps, (schema_url, platform), strict=True):
        app.config["SQLALCHEMY_DATABASE_URI"] = str(url).replace("postgres:", "postgresql+psycopg:")
        app.config["RIVERRUN_DATABASE_URL"] = str(url)
        SQLAlchemy(app)
        jobs.init_app(app)
    for app, engine in zip(apps, (schema_engine, empty_database), strict=True):
        with app.app_context():
            jobs.insert(Start())
            app.extensions["sqlalchemy"].session.commit()
            assert "default" in jobs.client.queues
        require_inserted(engine, Start)
        drain(engine, app.extensions["riverrun"].client)
        app.extensions["riverrun"].client.engine.dispose()
        with app.app_context():
            app.extensions["sqlalchemy"].engine.dispose()
    assert worked == ["one", "two"]


@pytest.mark.parametrize("dashboard", [False, True])
def test_one_extension_for_each_application(dashboard: bool) -> None:
    """A second Riverrun for one application is refused: the workers of the first would be lost."""
    options: dict[str, Any] = {}
    if dashboard:
        options = {"dashboard_path": "/jobs", "authorize": lambda _: None}
    app = Flask("shop")
    jobs = Riverrun(app, **options)
    with pytest.raises(ClientNotReady, match=r"'shop' has a .*Riverrun already; import and use"):
        Riverrun(app, **options)
    if dashboard:
        with pytest.raises(ClientNotReady, match="init_app once"):
            jobs.init_app(app)
    jobs.init_app(Flask("another"))


def test_the_command_line_says_what_is_missing(site: Site, tmp_path: Path) -> None:
    """For an application without a database, one line says what to do."""
    (tmp_path / "bare.py").write_text(
        "from flask import Flask\n"
        "from riverrun.ext.flask import Riverrun\n"
        "app = Flask('bare')\n"
        "Riverrun(app)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "DATABASE_URL": ""}
    work = ("flask", "--app", "bare", "riverrun", "work")
    error = site.run(*work, environment=environment, code=2, stderr=True)
    assert "set RIVERRUN_DATABASE_URL" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "command",
    [("work", "other:client"), ("work", "--app", "other:client"), ("health", "-A", "other:client")],
)
def test_the_command_line_takes_no_other_client(command: tuple[str, ...], schema_url: str) -> None:
    """`flask riverrun work MODULE:CLIENT` is refused, because the application's client works."""
    app = Flask("shop")
    app.config["RIVERRUN_DATABASE_URL"] = schema_url
    Riverrun(app)
    result = app.test_cli_runner().invoke(args=["riverrun", *command])
    assert result.exit_code == 2
    assert "'other:client' names another client than the application's; leave it" in result.output


def test_says_what_is_missing() -> None:
    """Errors about a wrong setting, a missing database and a missing init_app say what to do."""
    app = Flask("app")
    app.config["RIVERRUN_QUEUE"] = "x"
    with pytest.raises(InvalidOption, match=r"RIVERRUN_QUEUE.*RIVERRUN_QUEUES"):
        Riverrun(app)
    app = Flask("app")
    app.config["RIVERRUN_POLL_INTERVAL"] = "often"
    with pytest.raises(InvalidOption, match="RIVERRUN_POLL_INTERVAL is 'often'"):
        Riverrun(app)
    app = Flask("app")
    jobs = Riverrun(workers=Workers())
    with app.app_context():
        with pytest.raises(ClientNotReady, match="init_app"):
            jobs.insert(Start())
        jobs.init_app(app)
        with pytest.raises(ClientNotReady, match="RIVERRUN_DATABASE_URL"):
            _ = jobs.client
        app.config["RIVERRUN_DATABASE_URL"] = "postgresql+psycopg://localhost/none"
        jobs.init_app(app)
        with pytest.raises(ClientNotReady, match="session="):
            jobs.insert(Start())
    with pytest.raises(RuntimeError, match="application context"):
        jobs.insert(Start())

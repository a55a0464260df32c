"""Pyramid: a shop under pserve, with pyramid_tm, pyramid_retry and zope.sqlalchemy."""

import json
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError
from sqlalchemy import Engine

from ext.apps.pyramid_shop import Base, Greet, workers
from ext.conftest import Site
from riverrun import Client, QueueConfig, verbs
from riverrun.errors import ClientNotReady, InvalidOption
from riverrun.ext.pyramid import client_of
from riverrun.testing import require_inserted, require_many_inserted, require_not_inserted
from waiting import until

INI = """
[pipeline:main]
pipeline = filter shop

[filter:filter]
paste.filter_app_factory = pyramid_shop:filtered

[app:shop]
paste.app_factory = pyramid_shop:main
riverrun.queues = default:5
riverrun.poll_interval = 0.5

[server:main]
use = egg:waitress#main
listen = 127.0.0.1:{port}
threads = 4

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = generic
[formatter_generic]
format = %(levelname)s %(name)s %(message)s
"""


@pytest.fixture
def tables(schema_engine: Engine) -> Engine:
    """The shop's tables, next to ours."""
    Base.metadata.create_all(schema_engine)
    return schema_engine


@pytest.fixture
def ini(tmp_path: Path, site: Site) -> str:
    """The shop's INI file."""
    path = tmp_path / "shop.ini"
    path.write_text(INI.format(port=site.port))
    return str(path)


@pytest.fixture
def served(site: Site, ini: str, tables: Engine) -> Site:
    """The shop, served over HTTP."""
    site.serve("pyramid.scripts.pserve", ini)
    return site


def test_what_a_request_inserts_is_committed_with_it(served: Site, tables: Engine) -> None:
    """A request that only inserts commits its job; one that fails or is aborted leaves none."""
    status, answer = served.post("/signup", {"name": "Ada"})
    assert status == 200, served.logs()
    assert require_inserted(tables, Greet("Ada")).id == answer["job_id"]
    assert served.post("/signup", {"name": "Bob", "how": "raise"})[0] == 500
    assert served.post("/signup", {"name": "Bob", "how": "view"})[0] == 422
    for how in ("abort", "doom"):
        served.post("/signup", {"name": "Bob", "how": how})
    require_not_inserted(tables, Greet("Bob"))
    assert served.post("/signup", {"name": "Eve", "how": "savepoint"})[0] == 200, served.logs()
    require_many_inserted(tables, [Greet("Ada"), Greet("Eve")])


def test_what_is_retried_is_inserted_once(served: Site, tables: Engine) -> None:
    """If pyramid_retry runs a view again, the job of the first run is rolled back."""
    status, _ = served.post("/signup", {"name": "Ada", "how": "retry"})
    assert status == 200, served.logs()
    require_inserted(tables, Greet("Ada"))


@pytest.mark.parametrize("how", ["insert", "copy"])
def test_batches_are_committed(served: Site, tables: Engine, how: str) -> None:
    """Inserting several jobs, by INSERT or by COPY, also marks the session as changed for zope."""
    status, _ = served.post("/many?name=Ada&name=Bob", {"how": how})
    assert status == 200, served.logs()
    require_many_inserted(tables, [Greet("Ada"), Greet("Bob")])


@pytest.mark.parametrize(("verb", "state"), [("cancel", "cancelled"), ("retry", "available")])
def test_operations_are_committed(served: Site, tables: Engine, verb: str, state: str) -> None:
    """A request that only changes a job commits the change."""
    job = verbs.insert(tables, Greet("Ada")).job
    assert served.post(f"/operate/{verb}", {"id": str(job.id)}) == (200, {"state": state})
    assert verbs.get(tables, job.id).state == state


def test_workers_have_a_request(served: Site, ini: str, tables: Engine) -> None:
    """A worker's dbsession is committed when it returns, and aborted when it raises."""
    for name in ("Ada", "twice"):
        served.post("/signup", {"name": name})
    served.start("riverrun.ext.pyramid", ini, "work")
    until(lambda: not verbs.count_jobs(tables), "the end of both jobs")
    users = served.users()
    assert sorted(name for name, _ in users) == ["Ada", "twice"]
    assert all(by for _, by in users)


def test_the_console_script(site: Site, ini: str, tables: Engine) -> None:
    """`priverrun shop.ini` has the commands of `riverrun`, for the application's client."""
    run = ("riverrun.ext.pyramid", ini)
    inserted = json.loads(site.run(*run, "insert", "greet", '{"name": "Ada"}', "--json"))
    assert json.loads(site.run(*run, "jobs", "list", "--json"))["id"] == inserted["id"]
    assert "newest version" in site.run(*run, "migrate", "validate")
    assert site.run("riverrun.ext.pyramid", "-h") == site.run("riverrun.ext.pyramid", "--help")
    assert "--state" in site.run(*run, "jobs", "list", "-h")
    error = site.run("riverrun.ext.pyramid", "nowhere.ini", "work", code=2, stderr=True)
    assert error.endswith("Error: there is no file nowhere.ini\n")


def configured(**settings: str) -> Configurator:
    """Return a configuration that includes riverrun."""
    config = Configurator(settings=settings)
    config.include("riverrun.ext.pyramid")
    return config


def test_takes_the_applications_client(engine: Engine) -> None:
    """The application may set its own client or workers; setting them twice is a conflict."""
    client = Client(engine)
    config = configured()
    config.set_riverrun_client(client)
    config.commit()
    assert client_of(config.registry) is client
    config.include("riverrun.ext.pyramid")  # as a package that the application includes may do
    config.commit()
    assert client_of(config.registry) is client
    again = configured()
    again.set_riverrun_client(client)
    again.commit()
    assert len(client.plugins) == 1, "a request within a request of another application"
    config.set_riverrun_client(client)
    config.set_riverrun_client(Client(engine))
    with pytest.raises(ConfigurationConflictError):
        config.commit()
    url = engine.url.render_as_string(hide_password=False)
    own = configured(
        **{
            "riverrun.workers": "ext.apps.pyramid_shop.workers",
            "riverrun.database_url": url,
            "riverrun.queues": "default mail:2",
            "riverrun.poll_only": "true",
            "riverrun.completed_retention": "none",
        }
    )
    made = client_of(own.registry)
    assert made.workers is workers
    expected = {"default": QueueConfig(), "mail": QueueConfig(max_workers=2)}
    assert made.queues.configs == expected
    assert made is client_of(own.registry)


def test_says_what_is_missing() -> None:
    """Errors about wrong settings and missing databases say what to do."""
    with pytest.raises(InvalidOption, match=r"setting is 'riverrun\.queue'"):
        configured(**{"riverrun.queue": "x"})
    with pytest.raises(InvalidOption, match="poll_only is 'maybe'; expected true or false"):
        configured(**{"riverrun.poll_only": "maybe"})
    with pytest.raises(ClientNotReady, match="set_riverrun_client"):
        client_of(configured().registry)
    with pytest.raises(ClientNotReady, match=r'config\.include\("riverrun\.ext\.pyramid"\)'):
        client_of(Configurator().registry)

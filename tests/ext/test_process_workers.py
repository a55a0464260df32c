"""Workers in worker processes have the application, in Flask and in Pyramid."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from pyramid.config import Configurator
from sqlalchemy import Engine, select

from ext.apps import flask_shop, pyramid_shop
from ext.conftest import Site
from ext.test_pyramid import INI
from riverrun import JobEvent, Workers, verbs
from riverrun.errors import ClientNotReady
from riverrun.execution.plugins import in_processes
from riverrun.ext.flask import Riverrun, client_of
from riverrun.ext.pyramid import client_of as pyramid_client_of
from waiting import DEADLINE_S, until


def user(engine: Engine, name: str) -> int:
    """Write a user, and return its id."""
    flask_shop.Base.metadata.create_all(engine)
    with engine.begin() as connection:
        table = flask_shop.User.__table__
        return int(
            connection.scalar(table.insert().values(name=name).returning(table.c.id))  # type: ignore[attr-defined, arg-type]
        )


def greeters(engine: Engine) -> list[int | None]:
    """Return which process greeted each user."""
    with engine.connect() as connection:
        return list(connection.scalars(select(flask_shop.User.greeted_by)))


def test_flask(site: Site, schema_engine: Engine) -> None:
    """Under `flask riverrun work`, a worker process makes the application as the command did."""
    user_id = user(schema_engine, "Ada")
    verbs.insert(schema_engine, flask_shop.Audit(user_id))
    worker = site.start("flask", "--app", "flask_shop:create_app('lite')", "riverrun", "work")
    until(lambda: greeters(schema_engine)[0], "the audit", why=site.logs)
    assert greeters(schema_engine) != [worker.pid]


def test_flask_in_a_program(
    schema_engine: Engine, schema_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another program, a worker process makes the application by import name or setting."""
    monkeypatch.setenv("DATABASE_URL", schema_url)
    app = flask_shop.create_app("plain")
    client = client_of(app)
    user_id = user(schema_engine, "Ada")
    with client.subscribe(JobEvent) as events, client:
        client.insert(client.engine, flask_shop.Audit(user_id))
        assert events.get(timeout=DEADLINE_S).job.state == "completed"
    assert greeters(schema_engine) not in ([None], [os.getpid()])
    client.engine.dispose()
    lost = Flask("shop")
    lost.config["RIVERRUN_FLASK_APP"] = "nowhere:create_app()"
    lost.config["RIVERRUN_DATABASE_URL"] = schema_url
    Riverrun(lost, workers=flask_shop.workers)
    encoded = pickle.dumps(in_processes(client_of(lost).plugins)[0])
    with pytest.raises(ClientNotReady, match="set RIVERRUN_FLASK_APP as for"):
        pickle.loads(encoded)


def test_flask_refuses_what_no_process_can_import(schema_url: str) -> None:
    """An application whose factory cannot be imported is refused, and the error says what to do."""
    app = Flask("shop")
    app.config["RIVERRUN_DATABASE_URL"] = schema_url
    Riverrun(app, workers=flask_shop.workers)
    state: Any = app.extensions["riverrun"]
    state.made_by = type(state.made_by)(None, lambda: app)
    with pytest.raises(ClientNotReady, match="set RIVERRUN_FLASK_APP"):
        client_of(app).start()
    client_of(app).engine.dispose()


def test_pyramid(site: Site, schema_engine: Engine, tmp_path: Path) -> None:
    """Under priverrun, a worker process makes the INI file's application; its requests commit."""
    pyramid_shop.Base.metadata.create_all(schema_engine)
    ini = tmp_path / "shop.ini"
    ini.write_text(INI.format(port=site.port))
    verbs.insert_many(
        schema_engine, [pyramid_shop.Audit("Bob", "raise"), pyramid_shop.Audit("Ada")]
    )
    worker = site.start("riverrun.ext.pyramid", str(ini), "work")

    def exited() -> bool:
        return not any(job.state == "running" for job in verbs.list_jobs(schema_engine).jobs)

    until(lambda: greeters(schema_engine) and exited(), "the audit", 100.0, why=site.logs)
    assert "after the flush" in str([job.errors for job in verbs.list_jobs(schema_engine).jobs])
    assert greeters(schema_engine) not in ([None], [worker.pid])
    with schema_engine.connect() as connection:
        assert connection.scalars(select(pyramid_shop.User.name)).all() == ["Ada"]


def test_pyramid_in_a_program(
    site: Site,
    schema_engine: Engine,
    schema_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In another program, the setting `riverrun.ini` names the file, and is required."""
    with Configurator(settings={"riverrun.database_url": schema_url}) as config:
        config.include("riverrun.ext.pyramid")
        config.set_riverrun_workers(pyramid_shop.workers)
    client = pyramid_client_of(config.registry)
    with pytest.raises(ClientNotReady, match=r"riverrun\.ini = %\(__file__\)s"):
        client.start()
    assert not client.running
    client.engine.dispose()


def test_clients_without_process_workers_ask_for_nothing(schema_url: str) -> None:
    """An application whose workers all run in threads needs no way to be made again."""
    app = Flask("shop")
    app.config["RIVERRUN_DATABASE_URL"] = schema_url
    queue = Riverrun(app, workers=Workers())
    queue.worker(flask_shop.start)
    state: Any = app.extensions["riverrun"]
    state.made_by = type(state.made_by)(None, lambda: app)
    with client_of(app) as client:
        assert client.running
    client.engine.dispose()

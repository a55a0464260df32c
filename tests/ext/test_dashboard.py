"""The dashboard in its hosts: their sign-in runs, and a mount that goes round it is closed."""

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from flask import Flask, request
from flask_wtf.csrf import CSRFProtect
from pyramid.config import Configurator
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from dashboard_hosts import (
    ADA,
    ByHeader,
    asgi_app,
    flask_app,
    mounted,
    of_environ,
    of_flask,
    of_pyramid,
    of_scope,
    pyramid_app,
)
from factories import insert_job
from riverrun import Client
from riverrun.errors import InvalidOption
from riverrun.web import Dashboard
from riverrun.web import asgi as as_asgi
from serving import Answer, asgi, ask, stripping_proxy, wsgi


@pytest.fixture
def client(engine: Engine, schema: str) -> Client:
    """A client with a job that a page can show."""
    insert_job(engine, schema, kind="greet_everyone")
    return Client(engine, schema=schema)


def check_page(answer: Answer, base: str) -> None:
    """The page shows the job, and all its addresses are below `base`."""
    assert answer.status == 200, answer.text
    assert "greet_everyone" in answer.text
    addresses = re.findall(r'(?:href|src|action)="([^"#]+)"', answer.text)
    local = [each for each in addresses if not each.startswith(("?", "http"))]
    assert local
    assert [each for each in local if not each.startswith(f"{base}/")] == []
    sheet = next(each for each in local if each.partition("?")[0].endswith(".css"))
    assert sheet.startswith(f"{base}/")


class Forms(HTMLParser):
    """The forms of a page that post: their addresses, and the fields that they have filled in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form":
            self._inside = given.get("method", "").lower() == "post"
            if self._inside:
                self.found.append((given["action"], {}))
        elif self._inside and tag == "input" and "name" in given:
            self.found[-1][1][given["name"]] = given.get("value", "")


def post(root: str, base: str, headers: Mapping[str, str]) -> None:
    """Post a form of a page, as a browser without scripts does; from elsewhere it is refused."""
    page = ask(f"{root}{base}/jobs", headers)
    address, form = next(each for each in Forms(page.text).found if "preferences" in each[0])
    assert address.startswith(f"{base}/")
    form["theme"] = "dark"
    refused = ask(f"{root}{address}", {**headers, "Sec-Fetch-Site": "cross-site"}, form)
    assert refused.status == 403
    answer = ask(f"{root}{address}", {**headers, "Sec-Fetch-Site": "same-origin"}, form)
    assert answer.status == 303, answer.text
    sent = {name.lower(): value for name, value in answer.headers.items()}
    assert sent["location"].endswith(f"{base}/jobs")
    cookie = sent["set-cookie"].partition(";")[0]
    assert 'data-theme="dark"' in ask(f"{root}{base}/jobs", {**headers, "Cookie": cookie}).text


def test_a_view_of_flask(client: Client) -> None:
    """The extension mounts a view: without a sign-in 401, with it pages and actions as the user."""
    with wsgi(mounted(client, flask_app())) as root:
        assert ask(f"{root}/admin/jobs/jobs").status == 401
        assert ask(f"{root}/admin/jobs/jobs", {"REMOTE_USER": "ada"}).status == 401
        check_page(ask(f"{root}/admin/jobs/jobs", ADA), "/admin/jobs")
        bare = ask(f"{root}/admin/jobs", ADA)
        assert (bare.status, bare.headers["Location"]) == (308, f"{root}/admin/jobs/")
        assert ask(f"{root}/admin/jobsearch", ADA).status == 404
        post(root, "/admin/jobs", ADA)


def test_a_path_of_the_settings(client: Client) -> None:
    """RIVERRUN_DASHBOARD_PATH overrides the argument; empty means that there is no dashboard."""
    with wsgi(mounted(client, flask_app(RIVERRUN_DASHBOARD_PATH="/ops/"))) as root:
        check_page(ask(f"{root}/ops/jobs", ADA), "/ops")
        assert ask(f"{root}/admin/jobs/jobs", ADA).status == 404
    with wsgi(mounted(client, flask_app(RIVERRUN_DASHBOARD_PATH=""))) as root:
        assert ask(f"{root}/admin/jobs/jobs", ADA).status == 404


@pytest.mark.parametrize("path", ["/", "/<shop>/jobs", "/admin//jobs", "/größe"])
def test_any_path_of_flask(client: Client, path: str) -> None:
    """The dashboard is at home below the root, a variable part and letters outside ASCII."""
    base = path.rstrip("/").replace("<shop>", "eu").replace("größe", "gr%C3%B6%C3%9Fe")
    with wsgi(mounted(client, flask_app(), dashboard_path=path)) as root:
        page = ask(f"{root}{base}/jobs", ADA)
        check_page(page, base)
        (sheet,) = re.findall(r'href="([^"]+\.css)"', page.text)
        assert ask(f"{root}{sheet}", ADA).headers["Content-Type"].startswith("text/css")
        post(root, base, ADA)


def test_an_application_that_matches_hosts(client: Client) -> None:
    """With Flask's `host_matching` the dashboard is at its path on each of the hosts."""
    app = Flask("shop", host_matching=True, static_host="static.example.com")
    mounted(client, app, authorize=of_environ)
    with wsgi(app) as root:
        check_page(ask(f"{root}/admin/jobs/jobs", ADA), "/admin/jobs")
        check_page(ask(f"{root}/admin/jobs/jobs", {**ADA, "Host": "eu.example.com"}), "/admin/jobs")
        post(root, "/admin/jobs", ADA)


@pytest.mark.parametrize("early", [True, False])
def test_a_host_with_tokens_in_its_forms(client: Client, early: bool) -> None:
    """With Flask-WTF's protection, the dashboard's forms pass without the host's token."""
    app = flask_app(SECRET_KEY="secret")
    app.post("/own")(lambda: "own")
    if early:
        CSRFProtect(app)
    mounted(client, app)
    if not early:
        CSRFProtect(app)
    with wsgi(app) as root:
        assert ask(f"{root}/own", ADA, {}).status == 400
        post(root, "/admin/jobs", ADA)


@pytest.mark.parametrize("reads", ["form", "data", "data, then form"])
def test_a_host_that_reads_forms(client: Client, reads: str) -> None:
    """A hook of the host that reads each body or form does not take it from the dashboard."""
    app = flask_app()

    @app.before_request
    def audit() -> None:
        if "data" in reads:
            request.get_data()
        if "form" in reads:
            request.form.get("audit")

    with wsgi(mounted(client, app)) as root:
        post(root, "/admin/jobs", ADA)


@pytest.mark.parametrize(
    "options", [{"dashboard_path": "/jobs", "authorize": None}, {"dashboard_path": "jobs"}]
)
def test_options_that_would_be_a_mistake(client: Client, options: dict[str, Any]) -> None:
    """A dashboard without `authorize`, or at a path without a slash, is refused at the start."""
    with pytest.raises(InvalidOption):
        mounted(client, flask_app(), **options)


def test_a_dispatcher_before_flask_lets_no_user_in(client: Client) -> None:
    """Mounted before the application, whose sign-in does not run, `authorize` still decides."""
    app = flask_app()
    closed = Dashboard(client, authorize=of_environ)
    failing = Dashboard(client, authorize=of_flask)  # `g` does not exist there
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/a": closed, "/b": failing})
    with wsgi(app) as root:
        assert ask(f"{root}/other").status == 401
        assert ask(f"{root}/a/jobs").status == 403
        assert "greet_everyone" not in ask(f"{root}/a/jobs").text
        broken = ask(f"{root}/b/jobs", ADA)
        assert broken.status == 500
        assert "greet_everyone" not in broken.text
        assert "application context" not in broken.text
        check_page(ask(f"{root}/a/jobs", ADA), "/a")
        check_page(ask(f"{root}/a/jobs/", ADA), "/a")


def test_a_route_of_pyramid(client: Client) -> None:
    """The view wants the permission, hands the user on, and needs no token of the host."""
    with wsgi(pyramid_app(client)) as root:
        assert ask(f"{root}/admin/jobs/jobs").status == 403
        assert ask(f"{root}/admin/jobs/jobs", {"X-Session": "eve"}).status == 403
        refused = ask(f"{root}/admin/jobs/jobs", {"X-Session": "bob"})
        assert refused.status == 403
        assert "may not see this dashboard" in refused.text
        check_page(ask(f"{root}/admin/jobs/jobs", ADA), "/admin/jobs")
        assert "/admin/jobs/static/" in ask(f"{root}/admin/jobs", ADA).text
        assert ask(f"{root}/admin/jobsearch", ADA).text == "found"
        post(root, "/admin/jobs", ADA)


@pytest.mark.parametrize("path", ["/", "/{shop}/jobs", "/größe"])
def test_any_path_of_pyramid(client: Client, path: str) -> None:
    """The dashboard is at home below the root, a variable part and letters outside ASCII."""
    base = path.rstrip("/").replace("{shop}", "eu").replace("größe", "gr%C3%B6%C3%9Fe")
    with wsgi(pyramid_app(client, path=path)) as root:
        check_page(ask(f"{root}{base}/jobs", ADA), base)
        post(root, base, ADA)


def test_a_part_of_a_pyramid_application(client: Client) -> None:
    """Included with a prefix for its routes, a part mounts the dashboard below that prefix."""

    def part(config: Any) -> None:
        config.add_riverrun_dashboard("/jobs", authorize=of_pyramid)

    with Configurator() as config:
        config.set_security_policy(ByHeader())
        config.include("riverrun.ext.pyramid")
        config.set_riverrun_client(client)
        config.include(part, route_prefix="ops")
    with wsgi(config.make_wsgi_app()) as root:
        check_page(ask(f"{root}/ops/jobs/jobs", ADA), "/ops/jobs")
        assert "/ops/jobs/static/" in ask(f"{root}/ops/jobs", ADA).text


def test_pyramid_believes_its_own_sign_in_alone(client: Client) -> None:
    """REMOTE_USER is whom the host has signed in, not what a server in front has put there."""
    app = pyramid_app(client, permission=None)

    def forged(environ: dict[str, Any], start_response: Any) -> Any:
        return app({**environ, "REMOTE_USER": "ada"}, start_response)

    with wsgi(forged) as root:
        assert ask(f"{root}/admin/jobs/jobs").status == 403
        assert ask(f"{root}/admin/jobs/jobs", {"X-Session": "bob"}).status == 403
        check_page(ask(f"{root}/admin/jobs/jobs", ADA), "/admin/jobs")


@pytest.mark.parametrize("host", [Starlette, FastAPI])
def test_middleware_of_a_mount(client: Client, host: Any) -> None:
    """Behind the middleware of its mount: 401 for strangers, and for others pages and actions."""
    with asgi(asgi_app(client, host)) as root:
        assert ask(f"{root}/admin/jobs/jobs").status == 401
        check_page(ask(f"{root}/admin/jobs/jobs", ADA), "/admin/jobs")
        bare = ask(f"{root}/admin/jobs", ADA)
        assert (bare.status, bare.headers["location"]) == (307, f"{root}/admin/jobs/")
        post(root, "/admin/jobs", ADA)


def test_dependencies_do_not_guard_a_mount(client: Client) -> None:
    """FastAPI's dependencies do not run for a mounted application; `authorize` decides alone."""

    def sign_in() -> None:
        raise HTTPException(401)

    app = FastAPI(dependencies=[Depends(sign_in)])
    app.get("/own")(lambda: "own")
    app.mount("/a", as_asgi(Dashboard(client, authorize=of_environ)))
    app.mount("/b", as_asgi(Dashboard(client, authorize=of_scope)))
    with asgi(app) as root:
        assert ask(f"{root}/own").status == 401
        for mount in ("a", "b"):
            refused = ask(f"{root}/{mount}/jobs")
            assert refused.status == 403
            assert "greet_everyone" not in refused.text
        check_page(ask(f"{root}/a/jobs", ADA), "/a")


def test_behind_a_proxy_that_strips_its_prefix(client: Client) -> None:
    """Addresses have the prefix that a proxy takes off: ProxyFix for WSGI, root_path for ASGI."""
    app = mounted(client, flask_app())
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1, x_host=1)
    with wsgi(app) as backend, wsgi(stripping_proxy(backend, "/outer")) as root:
        check_page(ask(f"{root}/outer/admin/jobs/jobs", ADA), "/outer/admin/jobs")
        post(root, "/outer/admin/jobs", ADA)


@pytest.mark.parametrize("named_by", ["server", "application"])
def test_behind_a_proxy_with_a_root_path(client: Client, named_by: str) -> None:
    """Addresses have the prefix that the proxy takes off, by uvicorn's or FastAPI's root_path."""
    pages = as_asgi(Dashboard(client, authorize=of_environ))
    inner = Starlette(routes=[Mount("/admin/jobs", app=pages)])

    async def of_fastapi(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": "/outer"}, receive, send)  # what `root_path=` does

    app, root_path = (inner, "/outer") if named_by == "server" else (of_fastapi, "")
    with (
        asgi(app, root_path=root_path) as backend,
        wsgi(stripping_proxy(backend, "/outer")) as root,
    ):
        check_page(ask(f"{root}/outer/admin/jobs/jobs", ADA), "/outer/admin/jobs")
        post(root, "/outer/admin/jobs", ADA)


def test_alone_under_a_server(client: Client) -> None:
    """Any WSGI or ASGI server serves the dashboard by itself, at the root."""
    pages = Dashboard(client, authorize=of_environ)
    for serve, app in ((wsgi, pages), (asgi, as_asgi(pages))):
        with serve(app) as root:
            assert ask(f"{root}/jobs").status == 403
            check_page(ask(f"{root}/jobs", ADA), "")

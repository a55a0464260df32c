"""Applications that have the dashboard at `/admin/jobs`, and sign in by the header `X-Session`."""

from typing import Any

from flask import Flask, abort, g, request
from pyramid.config import Configurator
from pyramid.response import Response
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from riverrun import Client
from riverrun.ext.flask import Riverrun
from riverrun.web import Dashboard, User
from riverrun.web import asgi as as_asgi

ADA = {"X-Session": "ada"}
"""The headers of a browser in which Ada is signed in, for applications that go by `X-Session`."""


def of_environ(environ: dict[str, Any]) -> User | None:
    """Let those in who are signed in by the application's header."""
    name = environ.get("HTTP_X_SESSION")
    return User.all(name) if name else None


def of_flask(environ: dict[str, Any]) -> User | None:
    """Let the user in whom the application's hook has signed in."""
    return User.all(g.user) if g.user else None


def flask_app(**settings: Any) -> Flask:
    """Return an application that answers 401 to those who are not signed in."""
    app = Flask("shop")
    app.config.update(settings)

    @app.before_request
    def sign_in() -> None:
        g.user = request.headers.get("X-Session")
        if g.user is None:
            abort(401)

    return app


def mounted(client: Client, app: Flask, **options: Any) -> Flask:
    """Return the application with the dashboard mounted by the extension."""
    options = {"authorize": of_flask, "dashboard_path": "/admin/jobs", **options}
    Riverrun(app, engine=client.engine, schema=client.schema, **options)
    return app


class ByHeader:
    """A security policy of Pyramid that goes by the header `X-Session`."""

    def identity(self, request: Any) -> str | None:
        return request.headers.get("X-Session")

    authenticated_userid = identity

    def permits(self, request: Any, context: Any, permission: str) -> bool:
        return permission == "operate" and self.identity(request) in {"ada", "bob"}


def of_pyramid(environ: dict[str, Any]) -> User | None:
    """Let Ada in, whom the host has signed in."""
    assert environ["pyramid.request"].matched_route is not None
    name = environ.get("REMOTE_USER")
    return User.all(name) if name == "ada" else None


def pyramid_app(client: Client, **options: Any) -> Any:
    """Return an application that has the dashboard at `/admin/jobs`, and checks tokens."""
    options = {"authorize": of_pyramid, "permission": "operate", **options}
    with Configurator() as config:
        config.set_security_policy(ByHeader())
        config.set_default_csrf_options(require_csrf=True)
        config.include("riverrun.ext.pyramid")
        config.set_riverrun_client(client)
        config.add_riverrun_dashboard(options.pop("path", "/admin/jobs"), **options)
        config.add_route("search", "/admin/jobsearch")
        config.add_view(lambda _: Response("found"), route_name="search")
    return config.make_wsgi_app()


class SignIn:
    """ASGI middleware that answers 401 to strangers, and leaves the user in the state."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        user = dict(scope.get("headers", [])).get(b"x-session")
        if user is None:
            await PlainTextResponse("sign in first", status_code=401)(scope, receive, send)
            return
        scope.setdefault("state", {})["user"] = user.decode()
        await self.app(scope, receive, send)


def of_scope(environ: dict[str, Any]) -> User | None:
    """Let the user in whom the middleware has left in the ASGI scope."""
    name = environ["asgi.scope"].get("state", {}).get("user")
    return User.all(name) if name else None


def asgi_app(client: Client, host: Any) -> Any:
    """Return an application of Starlette or FastAPI that has the dashboard behind `SignIn`."""
    pages = as_asgi(Dashboard(client, authorize=of_scope))
    return host(routes=[Mount("/admin/jobs", app=pages, middleware=[Middleware(SignIn)])])

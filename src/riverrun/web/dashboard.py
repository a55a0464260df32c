"""The dashboard: guards and answers each request."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import attrs
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from riverrun.client.client import Client
from riverrun.clock import Clock
from riverrun.db.engines import check_engine
from riverrun.errors import InvalidOption, NotATransaction
from riverrun.jobs.checks import check_schema
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.web import render
from riverrun.web.cache import Cache
from riverrun.web.context import Context
from riverrun.web.errors import NotFound
from riverrun.web.formats import VERSION, etag_of, to_csv, to_json
from riverrun.web.links import Link
from riverrun.web.notices import notice_of
from riverrun.web.page import Page
from riverrun.web.preferences import Preferences
from riverrun.web.reader import LIMIT_S, Reader
from riverrun.web.redaction import Redact, Redaction
from riverrun.web.refusals import Problem, bare, problem_of
from riverrun.web.request import (
    Request,
    base_of,
    cookies_of,
    form_of,
    is_same_origin,
    origin_of,
    path_of,
    query_of,
)
from riverrun.web.responses import Response
from riverrun.web.routes import MENU, Handler, handler_of
from riverrun.web.users import Right, User
from riverrun.web.words import WORDS

logger = logger_of(__name__)

_METHODS = ("GET", "HEAD", "POST")


class Dashboard:
    """The dashboard, a WSGI application. One object serves any number of threads.

    Mount it under any prefix: it takes its addresses from `SCRIPT_NAME`.

    Args:
        client_or_engine: The application's client, or an Engine on PostgreSQL with psycopg 3. With
            a client the dashboard knows its workers and periodic jobs, too.
        authorize: Called with the environ of each request except those for style sheets and
            scripts. It returns the User who sent the request, or None for a stranger, who gets 403.
            There is no default, so that the jobs of an application are not shown to anyone by
            accident.
        schema: The schema of River's tables. Default: the client's, or the search path's.
        title: The name of the application, in the title of each page. Default: riverrun.
        redact: Called with a job, the path of a value and the value, before the value is shown. It
            returns what may be shown in its place. See `Redact`. Default: None, everything is
            shown to users with the right `view_args`.
        links: Links to other tools of the application. Default: none.

    Raises:
        InvalidOption: If an option is not of the right kind.
        NotATransaction, UnsupportedDatabase: If the engine is not one that riverrun works with.
    """

    def __init__(
        self,
        client_or_engine: Client | Engine,
        *,
        authorize: Callable[[dict[str, Any]], User | None],
        schema: str | None = None,
        title: str = "riverrun",
        redact: Redact | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        if not callable(cast("object", authorize)):
            expected = "a function that takes an environ and returns a User or None"
            raise InvalidOption("authorize", authorize, expected)
        if redact is not None and not callable(redact):
            raise InvalidOption("redact", redact, "a function of a job, a path and a value")
        if not all(isinstance(link, Link) for link in links):
            raise InvalidOption("links", links, "a sequence of Links")
        if not isinstance(title, str) or not title:
            raise InvalidOption("title", title, "a text that is not empty")
        self._client = client_or_engine if isinstance(client_or_engine, Client) else None
        given: Any = self._client.engine if self._client else client_or_engine
        if not isinstance(given, Engine):
            advice = "Pass the application's client"
            raise NotATransaction(type(given).__name__, advice, "a Client or an Engine")
        self._engine: Engine = check_engine(given)
        self._schema = check_schema(schema) or (self._client.schema if self._client else None)
        self._authorize = authorize
        self._title = title
        self._redaction = Redaction(redact)
        self._links = tuple(links)
        self._cache = Cache()
        self._clock = Clock()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        try:
            response = self._respond(environ)
        except Exception as error:
            log_error(logger, error, "a request to the dashboard failed")
            response = bare(HTTPStatus.INTERNAL_SERVER_ERROR, "failed")
        return response.send(start_response, head=environ.get("REQUEST_METHOD") == "HEAD")

    def _respond(self, environ: dict[str, Any]) -> Response:
        path, form = path_of(environ)
        if path.startswith("/static/"):
            return _static(path, environ)
        user = self._authorize(environ)
        if user is None:
            return bare(HTTPStatus.FORBIDDEN, "refused")
        if not isinstance(user, User):
            raise InvalidOption("authorize", type(user), "a function that returns a User or None")
        if not user.may(Right.view):
            return bare(HTTPStatus.FORBIDDEN, "refused")
        method = environ.get("REQUEST_METHOD")
        request = Request(
            method="POST" if method == "POST" else "GET",
            origin=origin_of(environ),
            base=base_of(environ),
            path=path,
            format=form,
            cookies=cookies_of(environ),
            etag=environ.get("HTTP_IF_NONE_MATCH"),
            user=user,
        )
        try:
            return self._handle(request, environ)
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                log_error(logger, error, "a page of the dashboard failed")
                problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "failed")
            elif problem.name == "no_database":
                logger.warning(
                    "no page of the dashboard: the database did not answer: %s", reason(error)
                )
            return self._refusal(request, problem)

    def _handle(self, request: Request, environ: dict[str, Any]) -> Response:
        if environ.get("REQUEST_METHOD") not in _METHODS:
            return self._refusal(request, Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method"))
        request = attrs.evolve(request, query=query_of(environ))
        handler, names = handler_of(request)
        if request.method == "POST":
            if not is_same_origin(environ):
                return self._refusal(request, Problem(HTTPStatus.FORBIDDEN, "origin"))
            request = attrs.evolve(request, form=form_of(environ))
        try:
            return self._answer(request, handler, names)
        except DBAPIError as error:
            # The pool had a connection that the server has ended. SQLAlchemy has now dropped all
            # that are as old, and a page that only reads can be made again.
            if request.method != "GET" or not error.connection_invalidated:
                raise
            return self._answer(request, handler, names)

    def _answer(self, request: Request, handler: Handler, names: Mapping[str, str]) -> Response:
        with Reader(self._engine, self._schema, self._cache) as read:
            context = Context(
                engine=self._engine,
                schema=self._schema,
                read=read,
                client=self._client,
                redaction=self._redaction,
                links=self._links,
                clock=self._clock,
            )
            answer = handler(request, context, **names)
        if request.method == "POST":
            # Or the page that the user comes back to would show how things were before.
            self._cache.clear()
        if isinstance(answer, Response):
            return answer
        return self._page(request, answer)

    def _page(self, request: Request, page: Page) -> Response:
        preferences = Preferences.of(request)
        etag = etag_of(
            page.name,
            page.data,
            request.query,
            request.format,
            request.base,
            request.user,
            preferences,
            self._title,
            sorted(render.assets_by_name()),
        )
        if request.etag == etag:
            return Response(status=HTTPStatus.NOT_MODIFIED, headers=(("ETag", etag),))
        headers = (("ETag", etag),)
        if request.format == "json":
            body = to_json(page.name, page.data)
            return Response(body=body, content_type="application/json", headers=headers)
        if request.format == "csv":
            if page.table is None:
                raise NotFound(request.path)
            body = to_csv(page.table.columns, page.table.rows)
            name = f'attachment; filename="{page.name}.csv"'
            return Response(
                body=body,
                content_type="text/csv; charset=utf-8",
                headers=(*headers, ("Content-Disposition", name)),
            )
        values = {**self._frame(request, page.section or page.name), **page.view}
        values |= {"page": page, "data": page.data, "title": page.title}
        values["refresh_s"] = page.refresh_s
        response = render.html(f"{page.name}.html", values)
        return attrs.evolve(response, headers=headers)

    def _frame(self, request: Request, section: str | None) -> dict[str, Any]:
        """Return what the frame around each page shows."""
        return {
            "request": request,
            "user": request.user,
            "may": lambda right: request.user.may(Right(right)),
            "now": self._clock.now(),
            "app_title": self._title,
            "section": section,
            "menu": MENU,
            "refresh_s": None,
            "notice": notice_of(request),
            "links": [link for link in self._links if not link.is_of_jobs],
            "assets": {
                name: request.url(f"/static/{asset.name}")
                for name, asset in render.assets().items()
            },
            "preferences": Preferences.of(request),
        }

    def _refusal(self, request: Request, problem: Problem) -> Response:
        """Return a page with the reason why there is no other."""
        text = WORDS.get(f"{problem.name}_text", problem.detail)
        text = text.format(limit=f"{LIMIT_S:g}") if "{limit}" in text else text
        allow = (("Allow", ", ".join(_METHODS)),)
        headers = allow if problem.status is HTTPStatus.METHOD_NOT_ALLOWED else ()
        if request.format == "json":
            error = {"problem": problem.name, "text": text, "detail": problem.detail}
            return Response(
                body=json.dumps({"version": VERSION, "error": error}).encode(),
                status=problem.status,
                content_type="application/json",
                headers=headers,
            )
        values = self._frame(request, None)
        values |= {
            "title": WORDS[problem.name],
            "text": text,
            "detail": problem.detail if problem.detail != text else "",
            "hint": WORDS.get(f"{problem.name}_hint", ""),
        }
        return attrs.evolve(
            render.html("error.html", values, status=problem.status), headers=headers
        )


def _static(path: str, environ: Mapping[str, Any]) -> Response:
    asset = render.assets_by_name().get(path.removeprefix("/static/"))
    if asset is None:
        return bare(HTTPStatus.NOT_FOUND, "not_found")
    if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
        return bare(HTTPStatus.METHOD_NOT_ALLOWED, "method")
    return asset.response(str(environ.get("HTTP_ACCEPT_ENCODING") or ""))

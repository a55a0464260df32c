"""riverrun in Flask: the application's session, settings, context and command line.

    db = SQLAlchemy()                # Flask-SQLAlchemy 3.1 or Flask-SQLAlchemy-Lite
    jobs = Riverrun()

    @jobs.worker
    def send_email(args: SendEmail) -> None:        # within an app context, as a view is
        user = db.session.get(User, args.user_id)

    def create_app(url):
        app = Flask(__name__)
        app.config["SQLALCHEMY_DATABASE_URI"] = url
        db.init_app(app)
        jobs.init_app(app)

        @app.post("/signup")
        def signup():
            user = User(email=request.form["email"])
            db.session.add(user)
            db.session.flush()
            jobs.insert(SendEmail(user.id))         # in db.session's transaction
            db.session.commit()
            return {}

        return app

`flask riverrun work` works them. Settings are the client's options under `RIVERRUN_`, such as
`RIVERRUN_QUEUES = {"default": 10}`; the default queue is worked unless said.
"""

import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from typing import Any, TypeVar

import click
from flask import Flask, current_app
from flask.cli import ScriptInfo
from sqlalchemy import Engine

from riverrun.cli.app import HOST_CLIENT, Shell
from riverrun.cli.main import HOST_COMMANDS
from riverrun.client import Client
from riverrun.context import JobContext
from riverrun.errors import ClientNotReady
from riverrun.ext.settings import client_options
from riverrun.options import QUEUE_DEFAULT, InsertOpts, QueueConfig
from riverrun.plugins import Plugin
from riverrun.sessions import Where, engine_at
from riverrun.verbs.insert import InsertResult
from riverrun.workers import Workers

R = TypeVar("R")

PREFIX = "RIVERRUN_"


class Riverrun:
    """The extension; one may serve several applications, each with a client of its own.

    Args:
        app: An application, or None and `init_app` later.
        workers: Who works what; `@jobs.worker` adds to it.
        session: Returns the session that `insert` joins, or a scoped_session; that of
            Flask-SQLAlchemy or Flask-SQLAlchemy-Lite unless said.
        engine: The client's; Flask-SQLAlchemy's default one unless said, or made of
            `RIVERRUN_DATABASE_URL`.
        plugins: What takes part in inserts and attempts, within the app context.
        **options: Further options of the Client; settings win over them.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        workers: Workers | None = None,
        session: Callable[[], Where] | None = None,
        engine: Engine | None = None,
        plugins: Iterable[Plugin] = (),
        **options: Any,
    ) -> None:
        self.workers = Workers() if workers is None else workers
        self.worker = self.workers.register
        self._session = session
        self._engine = engine
        self._plugins = tuple(plugins)
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve `app`; before or after the extension that has its engine.

        Raises:
            InvalidOption: If a setting is none, or its value cannot be read.
        """
        said = app.config.get_namespace(PREFIX)
        url = said.pop("database_url", None)
        options = {**self._options, **client_options(said, PREFIX)}
        app.extensions["riverrun"] = _State(self, app, url, options)
        app.cli.add_command(_group())

    @property
    def client(self) -> Client:
        """The current application's client.

        Raises:
            RuntimeError: If there is no app context.
            ClientNotReady: If the application has not been initialized, or has no database.
        """
        return client_of(current_app)

    def insert(self, args: object, opts: InsertOpts | None = None) -> InsertResult:
        """Insert a job in the transaction of the application's session; see `Client.insert`."""
        return self.client.insert(self._where(), args, opts)

    def insert_many(self, jobs: Iterable[object]) -> list[InsertResult]:
        """Insert jobs in the transaction of the application's session; all or none."""
        return self.client.insert_many(self._where(), jobs)

    def _where(self) -> Where:
        if self._session is not None:
            return self._session()
        host = current_app.extensions.get("sqlalchemy")
        if host is None:
            advice = "pass session= to Riverrun, or call client.insert(session, ...)"
            raise ClientNotReady(f"the application has no Flask-SQLAlchemy; {advice}")
        where: Where = host.session
        return where


def client_of(app: Flask) -> Client:
    """Return the client of the application `app`.

    Raises:
        ClientNotReady: If it was not initialized, or has no database.
    """
    state: _State | None = app.extensions.get("riverrun")
    if state is None:
        raise ClientNotReady("call init_app(app) of riverrun.ext.flask.Riverrun first")
    return state.client


class _State:
    """An application's client, made when it is first asked for: then its engine is there."""

    def __init__(
        self, extension: Riverrun, app: Flask, url: str | None, options: Mapping[str, Any]
    ) -> None:
        self._extension = extension
        self._app = app
        self._url = url
        self._options = options
        self._lock = threading.Lock()  # guards _client, of which there shall be one
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._made()
            return self._client

    def _made(self) -> Client:
        return Client(
            self._engine(),
            workers=self._extension.workers,
            plugins=(_AppContext(self._app), *self._extension._plugins),
            **{"queues": {QUEUE_DEFAULT: QueueConfig()}, **self._options},
        )

    def _engine(self) -> Engine:
        if self._extension._engine is not None:
            return self._extension._engine
        if self._url is not None:
            return engine_at(self._url)
        host = self._app.extensions.get("sqlalchemy")
        if host is None:
            advice = f"install Flask-SQLAlchemy, pass engine=, or set {PREFIX}DATABASE_URL"
            raise ClientNotReady(f"the application has no database; {advice}")
        engine: Engine = self._in_context(lambda: host.engine)
        return engine

    def _in_context(self, call: Callable[[], R]) -> R:
        """Call `call` with the application as the current one, and end nobody's session by it."""
        if current_app and current_app._get_current_object() is self._app:  # type: ignore[attr-defined]
            return call()

        def pushed() -> R:
            self._app.app_context().push()
            return call()

        # Never popped: teardown functions would end the session of a caller whose scope is another
        # one than the app context. In a context of its own the push is gone with that.
        return copy_context().run(pushed)


class _AppContext(Plugin):
    """Calls workers within an app context; its teardown removes the job's session."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        del ctx
        with self._app.app_context():
            call_next()

    async def work_async(self, ctx: JobContext, call_next: Callable[[], Awaitable[object]]) -> None:
        del ctx
        with self._app.app_context():
            await call_next()


def _group() -> click.Group:
    @click.group("riverrun", cls=Shell)
    @click.pass_context
    def group(context: click.Context) -> None:
        """Background jobs: work them, migrate their tables, look at them."""
        app = context.ensure_object(ScriptInfo).load_app()
        context.meta[HOST_CLIENT] = lambda: client_of(app)

    for command in HOST_COMMANDS:
        group.add_command(command)
    return group

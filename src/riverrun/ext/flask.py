"""The Flask extension: jobs in the application's session, with its settings and its CLI.

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

`flask riverrun work` works the jobs. The client's options are settings that begin with `RIVERRUN_`,
such as `RIVERRUN_QUEUES = {"default": 10}`. Default: only the queue `default` is worked.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click
from flask import Flask, current_app
from flask.cli import ScriptInfo
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from riverrun.cli.app import HOST_CLIENT
from riverrun.cli.shell import HOST_COMMANDS, Shell
from riverrun.client.client import Client
from riverrun.config import QueueConfig
from riverrun.db.engines import engine_at
from riverrun.db.second_engine import engine_beside
from riverrun.db.transactions import Tx
from riverrun.errors import ClientNotReady
from riverrun.execution.plugins import Plugin
from riverrun.execution.workers import Workers
from riverrun.ext.flask_contexts import PREFIX, AppContexts, MadeBy
from riverrun.ext.flask_dashboard import add_dashboard, has_dashboard
from riverrun.ext.mounts import Mount
from riverrun.ext.settings import client_options
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.options import QUEUE_DEFAULT, InsertOptions, InsertOpts
from riverrun.testing.host_sessions import (
    Binds,
    UndoneConnections,
    factory_within,
    registry_within,
)
from riverrun.verbs.insert import InsertResult

if TYPE_CHECKING:  # It needs Jinja2, which only applications with a dashboard must have.
    from riverrun.web import User

R = TypeVar("R")


class Riverrun:
    """The Flask extension. It may serve several applications, each with a client of its own.

    Args:
        app: The application. Default: None; call `init_app` later.
        workers: The workers by kind; `@jobs.worker` adds to them.
        session: A function that returns the Session or scoped_session that `insert` joins. Default:
            the session of Flask-SQLAlchemy or Flask-SQLAlchemy-Lite.
        engine: The client's engine. Default: an engine for `RIVERRUN_DATABASE_URL`, else
            Flask-SQLAlchemy's engine named by `RIVERRUN_BIND`, else its default engine. If the
            engine has another driver than psycopg 3, the client makes its own at the same URL.
        plugins: Plugins around inserts and attempts; they run within the app context.
        dashboard_path: Where the dashboard is, such as `/admin/jobs`. `RIVERRUN_DASHBOARD_PATH`
            overrides it. Default: None; the application has no dashboard.
        authorize: The `authorize` of the `riverrun.web.Dashboard`, required with a dashboard. It is
            called within the request, so `current_user` and `session` work in it.
        dashboard_options: Further options of the Dashboard, such as `title`.
        **options: Further options of the Client. Settings override them.

    Raises:
        ClientNotReady, InvalidOption: As for `init_app`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        workers: Workers | None = None,
        session: Callable[[], Tx] | None = None,
        engine: Engine | None = None,
        plugins: Iterable[Plugin] = (),
        dashboard_path: str | None = None,
        authorize: "Callable[[dict[str, Any]], User | None] | None" = None,
        dashboard_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.workers = Workers() if workers is None else workers
        self.worker = self.workers.register
        self._session = session
        self._engine = engine
        self._plugins = tuple(plugins)
        self._dashboard_path = dashboard_path
        self._dashboard_options = {**(dashboard_options or {}), "authorize": authorize}
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Initialize `app`, before or after the extension that has its engine.

        Raises:
            ClientNotReady: If `app` has another Riverrun already, or this one and its dashboard.
            InvalidOption: If there is no such setting, its value cannot be read, or the dashboard
                has a path and no `authorize`.
        """
        before: _State | None = app.extensions.get("riverrun")
        if before is not None and (before.extension is not self or has_dashboard(app)):
            # A second one would take the first one's place, and its workers would be lost.
            problem = f"the application {app.name!r} has a riverrun.ext.flask.Riverrun already"
            raise ClientNotReady(f"{problem}; import and use that one, and call init_app once")
        settings = app.config.get_namespace(PREFIX)
        url, bind = settings.pop("database_url", None), settings.pop("bind", None)
        path = settings.pop("flask_app", None)
        dashboard_path = settings.pop("dashboard_path", self._dashboard_path)
        options = {**self._options, **client_options(settings, PREFIX)}
        state = app.extensions["riverrun"] = _State(self, app, url, bind, options)
        state.made_by = MadeBy(path or os.environ.get("FLASK_APP") or app.import_name)
        app.cli.add_command(_group())
        if dashboard_path:
            mount = Mount(dashboard_path, self._dashboard_options)
            add_dashboard(app, mount, lambda: state.client)

    @property
    def client(self) -> Client:
        """The current application's client.

        Raises:
            RuntimeError: If there is no app context.
            ClientNotReady: If the application has not been initialized, or has no database.
        """
        return client_of(current_app)

    def insert(
        self,
        args: AnyArgs,
        opts: InsertOpts | None = None,
        **options: Unpack[InsertOptions],
    ) -> InsertResult:
        """Insert a job in the transaction of the application's session; see `Client.insert`."""
        return self.client.insert(self._tx(), args, opts, **options)

    def insert_many(self, jobs: Iterable[object]) -> list[InsertResult]:
        """Insert jobs in the transaction of the application's session; all or none."""
        return self.client.insert_many(self._tx(), jobs)

    def _tx(self) -> Tx:
        if self._session is not None:
            return self._session()
        return _state_of(current_app).tx


def client_of(app: Flask) -> Client:
    """Return the client of the application `app`.

    Raises:
        ClientNotReady: If the application was not initialized, or has no database.
    """
    return _state_of(app).client


@contextmanager
def rolled_back(app: Flask) -> Iterator[Session]:
    """Undo everything that the application `app` writes in the block; yield a Session to test with.

    The application's sessions, in views and in workers, become savepoints in one transaction: each
    sees what the others committed, and other connections see none of it. Sessions made directly
    from an engine, not by the application's extension or scoped_session, are not affected.

    Raises:
        ClientNotReady: As for `client_of`.
    """
    with _state_of(app).rolled_back() as session:
        yield session


def _state_of(app: Flask) -> "_State":
    state: _State | None = app.extensions.get("riverrun")
    if state is None:
        raise ClientNotReady("call init_app(app) of riverrun.ext.flask.Riverrun first")
    return state


class _State:
    """One application's client, made on first use, because its engine may not exist earlier."""

    def __init__(
        self,
        extension: Riverrun,
        app: Flask,
        url: str | None,
        bind: str | None,
        options: Mapping[str, Any],
    ) -> None:
        self.app = app
        self.made_by: MadeBy
        self._bind = bind
        self.extension = extension
        self._url = url
        self._options = options
        self._lock = threading.Lock()  # guards _client, so that only one is made
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    @property
    def tx(self) -> Tx:
        """The application's session, or its connection to the database that `RIVERRUN_BIND` names.

        Raises:
            ClientNotReady: If the application has neither Flask-SQLAlchemy nor its Lite version.
        """
        host = self.app.extensions.get("sqlalchemy")
        if host is None:
            advice = "pass session= to Riverrun, or call client.insert(session, ...)"
            raise ClientNotReady(f"the application has no Flask-SQLAlchemy; {advice}")
        tx: Tx = host.session
        if self._bind is not None:
            # The session itself would look for the jobs' table in the default database.
            tx = host.session.connection(bind_arguments={"bind": self._engines(host)[self._bind]})
        return tx

    @contextmanager
    def rolled_back(self) -> Iterator[Session]:
        """See the function `rolled_back`."""
        with ExitStack() as stack:
            connections = UndoneConnections(self.client.engine, stack)
            stack.enter_context(self.sessions_within(connections))
            session = stack.enter_context(self._test_session(connections.first))
            # Begin the outermost savepoint: ending an older one would end this one too.
            session.connection(bind_arguments={"bind": connections.first})
            yield session

    @contextmanager
    def sessions_within(self, binds: Binds | None) -> Iterator[None]:
        """Make the application's sessions savepoints on the connections that `binds` returns.

        Without `binds`, they are ordinary sessions in a scope of their own.
        """
        host = self._host_session()
        with ExitStack() as stack:
            if isinstance(host, scoped_session):
                stack.enter_context(registry_within(host, binds))
            elif isinstance(host, sessionmaker) and binds is not None:
                stack.enter_context(factory_within(host, binds))
            yield

    def _host_session(self) -> Any:
        """Return the scoped_session or sessionmaker that makes the application's sessions."""
        if self.extension._session is not None:
            return self._in_context(self.extension._session)
        host = self.app.extensions.get("sqlalchemy")
        # Flask-SQLAlchemy-Lite has one sessionmaker per application, and one Session per app
        # context. Flask-SQLAlchemy's attribute of the same name is SQLAlchemy's class.
        factory = self._in_context(lambda: getattr(host, "sessionmaker", None))
        return factory if isinstance(factory, sessionmaker) else getattr(host, "session", None)

    def _test_session(self, connection: Connection) -> Session:
        host = self._host_session()
        factory = host.session_factory if isinstance(host, scoped_session) else host
        if not isinstance(factory, sessionmaker):
            return Session(connection, join_transaction_mode="create_savepoint")
        session: Session = factory()
        # Flask-SQLAlchemy's session takes its engines from the current application, and a test may
        # have none.
        get_bind = session.get_bind
        session.get_bind = lambda *args, **options: self._in_context(  # type: ignore[method-assign]
            lambda: get_bind(*args, **options)
        )
        return session

    def _make_client(self) -> Client:
        return Client(
            self._engine(),
            workers=self.extension.workers,
            plugins=(AppContexts(self), *self.extension._plugins),
            **{
                "queues": {QUEUE_DEFAULT: QueueConfig()},
                "sessionmaker": self._sessionmaker(),
                **self._options,
            },
        )

    def _sessionmaker(self) -> sessionmaker[Any] | None:
        """Return what makes the application's sessions, for workers that take one."""
        host = self._host_session()
        factory = host.session_factory if isinstance(host, scoped_session) else host
        return factory if isinstance(factory, sessionmaker) else None

    def _engine(self) -> Engine:
        if self.extension._engine is not None:
            return engine_beside(self.extension._engine)
        if self._url is not None:
            return engine_at(self._url)
        host = self.app.extensions.get("sqlalchemy")
        if host is None:
            advice = f"install Flask-SQLAlchemy, pass engine=, or set {PREFIX}DATABASE_URL"
            raise ClientNotReady(f"the application has no database; {advice}")
        engines = self._engines(host)
        # The default engine is named None by Flask-SQLAlchemy, "default" by Flask-SQLAlchemy-Lite.
        for name in (None, "default") if self._bind is None else (self._bind,):
            if name in engines:
                return engine_beside(engines[name])
        problem = f"no database {self._bind!r}" if self._bind else "no default database"
        advice = f"set {PREFIX}BIND to one of {sorted(filter(None, engines))}"
        raise ClientNotReady(
            f"the application has {problem}; {advice}, or set {PREFIX}DATABASE_URL"
        )

    def _engines(self, host: Any) -> Mapping[str | None, Engine]:
        """Return the application's engines by name, including those inside its AsyncEngines."""
        async_engines = self._in_context(lambda: getattr(host, "async_engines", {}))
        return {
            **{name: engine.sync_engine for name, engine in async_engines.items()},
            **self._in_context(lambda: host.engines),
        }

    def _in_context(self, call: Callable[[], R]) -> R:
        """Call `call` with this as the current application, without a teardown of sessions."""
        if current_app and current_app._get_current_object() is self.app:  # type: ignore[attr-defined]
            return call()

        def pushed() -> R:
            self.app.app_context().push()
            return call()

        # The app context is never popped: that would run teardown functions, which would end the
        # session of a caller whose scope is not the app context. The push disappears with the
        # copied context.
        return copy_context().run(pushed)


def _group() -> click.Group:
    @click.group("riverrun", cls=Shell, names=HOST_COMMANDS)
    @click.pass_context
    def group(context: click.Context) -> None:
        """Work, list and insert background jobs, and migrate their tables."""
        info = context.ensure_object(ScriptInfo)
        app = info.load_app()
        if not app.config.get(f"{PREFIX}FLASK_APP"):
            _state_of(app).made_by = MadeBy(info.app_import_path, info.create_app)
        context.meta[HOST_CLIENT] = lambda: client_of(app)

    return group

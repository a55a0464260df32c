"""The Pyramid integration: `config.include("riverrun.ext.pyramid")`.

    def signup(request):
        request.dbsession.add(user)
        request.dbsession.flush()
        request.insert_job(SendEmail(user.id))      # in request.dbsession's transaction

pyramid_tm commits or aborts the job with the rest of the transaction, so a request that
pyramid_retry repeats inserts its job once. The client is made from settings that begin with
`riverrun.`, such as `riverrun.queues = default:10 mail:2` and
`riverrun.workers = shop.jobs.workers`. Or the application passes its own:

    config.set_riverrun_client(client)

Default: only the queue `default` is worked. `priverrun production.ini work` works the jobs, each
within a request of its own: the changes in `get_current_request().dbsession` are committed when the
worker returns.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Unpack

import click
from sqlalchemy import Connection, Engine, engine_from_config
from sqlalchemy.orm import Session, sessionmaker

from riverrun.cli.app import HOST_CLIENT, CommandError, ExitCode
from riverrun.cli.shell import HOST_COMMANDS, Shell
from riverrun.client.client import Client
from riverrun.config import QueueConfig
from riverrun.db.engines import engine_at
from riverrun.db.second_engine import engine_beside
from riverrun.db.urls import psycopg_url
from riverrun.errors import ClientNotReady
from riverrun.execution.context import JobContext
from riverrun.execution.plugins import InProcess, Plugin
from riverrun.execution.workers import Workers
from riverrun.ext.pyramid_dashboard import add_dashboard
from riverrun.ext.settings import client_options
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.options import QUEUE_DEFAULT, InsertOptions, InsertOpts
from riverrun.testing.host_sessions import UndoneConnections, binds_of, factory_within
from riverrun.verbs.insert import InsertResult

if TYPE_CHECKING:  # It needs Jinja2, which only applications with a dashboard must have.
    from riverrun.web import User

PREFIX = "riverrun."
KEY = "riverrun"


def includeme(config: Any) -> None:
    """Add the directives and request methods; `config.include` calls this function.

    Raises:
        InvalidOption: If there is no such setting, or its value cannot be read.
    """
    if KEY in config.registry:
        return  # Included again, after a commit: the client that was set meanwhile stays.
    settings = {
        name.removeprefix(PREFIX): value
        for name, value in config.registry.settings.items()
        if name.startswith(PREFIX)
    }
    state = _State(config.registry)
    state.url = settings.pop("database_url", None)
    state.ini = settings.pop("ini", None)
    if "workers" in settings:
        state.workers = config.maybe_dotted(settings.pop("workers"))
    if "client" in settings:
        state.use(config.maybe_dotted(settings.pop("client")))
    state.options = client_options(settings, PREFIX)
    config.registry[KEY] = state
    config.add_directive("set_riverrun_client", set_riverrun_client)
    config.add_directive("set_riverrun_workers", set_riverrun_workers)
    config.add_directive("add_riverrun_dashboard", add_riverrun_dashboard)
    config.add_request_method(_client, "riverrun", reify=True)
    config.add_request_method(insert_job)
    config.add_request_method(insert_jobs)


def set_riverrun_client(config: Any, client: Client | str) -> None:
    """Use the application's own client: the directive `config.set_riverrun_client`.

    Args:
        config: Pyramid's Configurator, on which the directive is called.
        client: A Client, or its dotted name.
    """
    found = config.maybe_dotted(client)
    config.action("riverrun.client", lambda: config.registry[KEY].use(found))


def set_riverrun_workers(config: Any, workers: Workers | str) -> None:
    """Use these workers: the directive `config.set_riverrun_workers`.

    Args:
        config: Pyramid's Configurator, on which the directive is called.
        workers: A Workers, or its dotted name.
    """
    found = config.maybe_dotted(workers)

    def register() -> None:
        config.registry[KEY].workers = found

    config.action("riverrun.workers", register)


def add_riverrun_dashboard(
    config: Any,
    path: str,
    *,
    authorize: "Callable[[dict[str, Any]], User | None] | str",
    permission: str | None = None,
    factory: Any = None,
    **options: Any,
) -> None:
    """Mount the dashboard: the directive `config.add_riverrun_dashboard`.

    The dashboard's environ has the request as `pyramid.request`, and as `REMOTE_USER` its
    `authenticated_userid`.

    Args:
        config: Pyramid's Configurator, on which the directive is called.
        path: Where the dashboard is, such as `/admin/jobs`.
        authorize: The `authorize` of the `riverrun.web.Dashboard`, or its dotted name.
        permission: The permission that the view requires. Default: none; `authorize` decides alone.
        factory: The root factory of the route, if its ACL is not the application's.
        **options: Further options of the Dashboard, such as `title`.

    Raises:
        InvalidOption: If there is no `authorize`, or the path does not begin with a slash.
    """
    given = {**options, "authorize": config.maybe_dotted(authorize)}
    add_dashboard(config, path, client_of, permission=permission, factory=factory, options=given)


def insert_job(
    request: Any,
    args: AnyArgs,
    opts: InsertOpts | None = None,
    **options: Unpack[InsertOptions],
) -> InsertResult:
    """Insert a job in the transaction of `request.dbsession`; see `Client.insert`."""
    result: InsertResult = request.riverrun.insert(request.dbsession, args, opts, **options)
    return result


def insert_jobs(request: Any, jobs: Iterable[object]) -> list[InsertResult]:
    """Insert jobs in the transaction of `request.dbsession`; all or none."""
    results: list[InsertResult] = request.riverrun.insert_many(request.dbsession, jobs)
    return results


def client_of(registry: Any) -> Client:
    """Return the client of the application that has this registry.

    Raises:
        ClientNotReady: If riverrun was not included, or the application has no database.
    """
    return _state_of(registry).client


@contextmanager
def rolled_back(app: Any) -> Iterator[Session]:
    """Undo everything that the application `app` writes in the block; yield a Session to test with.

    The sessions that `registry["dbsession_factory"]` makes, for requests and for workers, become
    savepoints in one transaction: each sees what the others committed, and other connections see
    none of it.

    Args:
        app: The return value of `make_wsgi_app()`, or its registry.

    Raises:
        ClientNotReady: As for `client_of`, or if the registry has no `dbsession_factory`.
    """
    with _state_of(getattr(app, "registry", app)).rolled_back() as session:
        yield session


def _state_of(registry: Any) -> "_State":
    state: _State | None = registry.get(KEY)
    if state is None:
        raise ClientNotReady('call config.include("riverrun.ext.pyramid") first')
    return state


def _client(request: Any) -> Client:
    """The application's client."""
    return client_of(request.registry)


class _State:
    """One application's configuration, and the client that is made from it on first use."""

    def __init__(self, registry: Any) -> None:
        self.workers: Workers | None = None
        self.url: str | None = None
        self.ini: str | None = None
        self.options: dict[str, Any] = {}
        self._registry = registry
        self._lock = threading.Lock()  # guards _client, so that only one is made
        self._client: Client | None = None

    def use(self, client: Client) -> None:
        """Use this client, and run its workers within requests."""
        # The client may still have the plugin of another application: tests make several in turn.
        others = [plugin for plugin in client.plugins if not isinstance(plugin, _RequestContext)]
        client.plugins = (_RequestContext(self._registry), *others)
        self._client = client

    @contextmanager
    def rolled_back(self) -> Iterator[Session]:
        """See the function `rolled_back`."""
        factory = self._registry.get("dbsession_factory")
        if not isinstance(factory, sessionmaker):
            advice = "put the sessionmaker that request.dbsession uses there"
            raise ClientNotReady(f'registry["dbsession_factory"] is not a sessionmaker; {advice}')
        with ExitStack() as stack:
            connections = UndoneConnections(self.client.engine, stack)
            stack.enter_context(factory_within(factory, connections))
            session = stack.enter_context(factory())
            # Begin the outermost savepoint: ending an older one would end this one too.
            session.connection(bind_arguments={"bind": connections.first})
            yield session

    @property
    def client(self) -> Client:
        with self._lock:
            if self._client is None:
                options = {
                    "queues": {QUEUE_DEFAULT: QueueConfig()},
                    "sessionmaker": self._sessionmaker(),
                    **self.options,
                }
                self.use(Client(self._engine(), workers=self.workers, **options))
                assert self._client is not None  # noqa: S101  set by use()
            return self._client

    def _sessionmaker(self) -> Any:
        """Return what makes the application's sessions, for workers that take one."""
        factory = self._registry.get("dbsession_factory")
        if not isinstance(factory, sessionmaker):
            return None
        with factory() as session:
            listeners = [getattr(hook, "__self__", None) for hook in session.dispatch.before_commit]
        # zope.sqlalchemy's sessions are committed by a transaction manager, and by nothing else.
        if any(type(listener).__module__.startswith("zope.sqlalchemy") for listener in listeners):
            return None
        return factory

    def _engine(self) -> Engine:
        if self.url is not None:
            return engine_at(self.url)
        factory = self._registry.get("dbsession_factory")
        bind = getattr(factory, "kw", {}).get("bind")
        if isinstance(bind, Engine):
            return engine_beside(bind)
        if "sqlalchemy.url" in self._registry.settings:
            url = self._registry.settings["sqlalchemy.url"]
            if str(url).partition(":")[0] not in {"postgres", "postgresql", "postgresql+psycopg"}:
                psycopg_url(url)  # Raises an error that names the database, if not PostgreSQL.
                return engine_beside(engine_from_config(self._registry.settings, "sqlalchemy."))
            settings = {**self._registry.settings, "sqlalchemy.url": psycopg_url(url)}
            return engine_from_config(settings, "sqlalchemy.")
        advice = "set sqlalchemy.url or riverrun.database_url, or call config.set_riverrun_client"
        raise ClientNotReady(f"the application has no database that riverrun knows; {advice}")


class _RequestContext(Plugin):
    """Calls each worker within a request, and in a transaction of its manager if it has one.

    `async def` workers are called without: Pyramid keeps one current request per thread, and they
    share a thread.
    """

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        with ExitStack() as stack:
            join = partial(self._join, test=ctx.test_connection, stack=stack)
            _within_request(self._registry, call_next, join if ctx.in_test else None)

    def in_process(self) -> InProcess:
        ini = self._registry[KEY].ini
        if ini is None:
            problem = "a worker's process cannot make the application"
            advice = f"start it with priverrun, or set {PREFIX}ini = %(__file__)s in its INI file"
            raise ClientNotReady(f"{problem}; {advice}")
        return _InRequest(ini)

    def _join(self, request: Any, *, test: Connection | None, stack: ExitStack) -> None:
        """Make the request's session a savepoint in a test's transaction."""
        with suppress(ImportError):
            from transaction import TransactionManager

            # pyramid_tm's default is the thread's manager; beginning a transaction there would
            # abort the test's.
            request.environ["tm.manager"] = TransactionManager(explicit=True)
        factory = self._registry.get("dbsession_factory")
        if test is not None and isinstance(factory, sessionmaker):
            stack.enter_context(factory_within(factory, binds_of(test)))
        elif test is not None and hasattr(type(request), "dbsession"):
            session = stack.enter_context(Session(test, join_transaction_mode="create_savepoint"))
            if hasattr(request, "tm"):
                import zope.sqlalchemy

                zope.sqlalchemy.register(session, transaction_manager=request.tm)
            request.dbsession = session


def _within_request(
    registry: Any, call: Callable[[], object], prepared: Callable[[Any], object] | None = None
) -> None:
    from pyramid.scripting import prepare

    with prepare(registry=registry) as env:
        request = env["request"]
        if prepared is not None:
            prepared(request)
        manager = getattr(request, "tm", None)
        with nullcontext() if manager is None else manager:
            call()


class _InRequest:
    """Calls a worker in a worker process, within a request of the application made there."""

    def __init__(self, ini: str) -> None:
        self._ini = ini

    def __call__(self, call_next: Callable[[], object]) -> None:
        _within_request(_registry_of(self._ini), call_next)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Runs in the worker process, before the attempt's time begins: making it may take long.
        self.__dict__.update(state)
        _registry_of(self._ini)


def _registry_at(ini: str) -> Any:
    from pyramid.config import global_registries
    from pyramid.paster import get_app, setup_logging

    setup_logging(ini)
    # A PasteDeploy pipeline returns its outermost filter, which is no Pyramid application. The
    # application inside it was made last.
    return getattr(get_app(ini), "registry", None) or global_registries.last


_registry_of = cache(_registry_at)


@click.group(cls=Shell, names=HOST_COMMANDS)
@click.argument("config_uri", metavar="INI")
@click.pass_context
def main(context: click.Context, config_uri: str) -> None:
    """Work, list and insert the jobs of the Pyramid application in an INI file."""
    if find_spec("pyramid") is None:
        raise CommandError("priverrun needs Pyramid: pip install pyramid", ExitCode.usage)
    if not os.path.exists(config_uri.partition("#")[0]):
        raise CommandError(f"there is no file {config_uri}", ExitCode.usage)
    registry = _registry_at(config_uri)
    if KEY in registry and registry[KEY].ini is None:
        registry[KEY].ini = os.path.abspath(config_uri)
    context.meta[HOST_CLIENT] = lambda: client_of(registry)


if __name__ == "__main__":
    main(prog_name="priverrun")

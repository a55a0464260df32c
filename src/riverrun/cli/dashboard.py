"""`riverrun dashboard`: serve the dashboard by itself, to the user who started it."""

import getpass
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from riverrun.cli.app import (
    CommandError,
    ExitCode,
    Target,
    app_option,
    database_option,
    option,
    schema_option,
    target,
)

IDLE_S = 10.0
"""Seconds after which the standard library's server closes a connection that sends nothing."""

THREADS = 8
"""How many requests waitress answers at the same time."""


@click.command
@option(
    "--bind",
    envvar="RIVERRUN_DASHBOARD_BIND",  # RIVERRUN_BIND is a setting of the Flask extension
    default="127.0.0.1:8300",
    show_default=True,
    metavar="HOST:PORT",
    help="The address to serve on; port 0 for any free one.",
)
@option(
    "--allow-network",
    is_flag=True,
    help="Serve on an address that other machines can reach. It is plain HTTP: all who can read "
    "the traffic can read what the pages show, and act as the user.",
)
@option("--read-only", is_flag=True, help="Show jobs with their args, and no buttons.")
@option("--user", metavar="NAME", help="The name that actions are recorded under. Default: yours.")
@schema_option
@database_option(required=False)
@app_option
def dashboard(
    bind: str,
    allow_network: bool,
    read_only: bool,
    user: str | None,
    schema: str | None,
    database_url: str | None,
    app: str | None,
) -> None:
    """Serve the dashboard until Ctrl-C, and print a link that signs one browser in.

    With --app it also knows which kinds the application has workers for. It needs
    `pip install 'riverrun[web]'`, and is served by waitress where that is installed.

    Exit codes: 0 stopped; 2 it cannot be served there; 3 database not reachable.
    """
    host, port = _address(bind)
    if not allow_network and not _is_loopback(host):
        problem = f"--bind {bind} can be reached from other machines, over plain HTTP"
        danger = "all who can read the traffic can read what the pages show, and act as the user"
        advice = "use an SSH tunnel to 127.0.0.1, or pass --allow-network"
        raise CommandError(f"{problem}: {danger}; {advice}", ExitCode.usage)
    with target(app, database_url, schema) as on:
        with on.engine.connect():
            pass  # If there is no database, this is the place to say so.
        _serve(on, host, port, user or _own_name(), read_only=read_only)
    click.echo("stopped", err=True)


def _serve(on: Target, host: str, port: int, name: str, *, read_only: bool) -> None:
    try:
        from riverrun.web import Dashboard, User
        from riverrun.web.one_time_link import OneTimeLink
    except ImportError as error:
        problem = f"the dashboard needs {error.name}: pip install 'riverrun[web]'"
        raise CommandError(problem, ExitCode.usage) from error
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    rights = frozenset({"view", "view_args"})
    who = User(name=name, rights=rights) if read_only else User.all(name)
    link = OneTimeLink(who, cookie=f"riverrun_{port}", on_used=lambda: show("Another browser"))

    def show(title: str) -> None:
        click.echo(f"{title}: http://{_shown(host)}:{port}{link.path}")
        sys.stdout.flush()

    source = on.client if on.is_application else on.engine
    pages = Dashboard(source, authorize=link.authorize, schema=on.schema)
    with listener, _stopped_by_signals():
        run = _server(listener, link.around(pages))
        show("Dashboard, until Ctrl-C")
        run()


def _address(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        problem = f"--bind is {bind!r}; expected HOST:PORT, such as 127.0.0.1:8300 or [::1]:8300"
        raise CommandError(problem, ExitCode.usage)
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(host: str) -> str:
    """Return the host for an address in a browser."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return socket.gethostname()
    return f"[{host}]" if address.version == 6 else host


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # A container may have a user without a name.
        return "operator"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        problem = f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}"
        raise CommandError(problem, ExitCode.usage) from error


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Leave the block at SIGINT or SIGTERM. Nothing but the loop of a server runs in its thread."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _server(listener: socket.socket, application: Any) -> Callable[[], None]:
    """Return a function that serves `application` until KeyboardInterrupt."""
    try:
        from waitress.server import create_server
    except ImportError:
        return _standard_server(listener, application)
    # Its warnings of a request that waits for a thread do not help a single user.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(
        application,
        sockets=[listener],
        threads=THREADS,
        ident=None,
        clear_untrusted_proxy_headers=True,
    )

    def run() -> None:
        try:
            server.run()
        finally:
            server.close()

    return run


def _standard_server(listener: socket.socket, application: Any) -> Callable[[], None]:
    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True  # Browsers keep connections open that they may need.
        address_family = listener.family

        def server_bind(self) -> None:
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()
            self.server_name, self.server_port = listener.getsockname()[:2]
            self.setup_environ()

        def server_activate(self) -> None:
            """Do nothing: the socket listens already."""

    class Handler(WSGIRequestHandler):
        timeout = IDLE_S

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    host, port = listener.getsockname()[:2]
    server = make_server(host, port, application, Server, Handler)

    def run() -> None:
        with server:
            server.serve_forever(0.1)

    return run

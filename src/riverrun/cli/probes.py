"""Probes over HTTP beside a working client: /livez, /readyz, and /metrics for Prometheus."""

import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from riverrun.cli.app import CommandError, ExitCode
from riverrun.client.client import Client
from riverrun.db.forks import close_in_child

logger = logging.getLogger(__name__)


MOST = 16
"""Connections at once; beyond it the oldest is closed for a new one."""

LONGEST_S = 10.0
"""Seconds after which a connection is closed, however busy its caller is."""


class Probes:
    """A small HTTP server in a thread of its own.

    Args:
        client: The client that is asked about.
        host: The address to listen on.
        port: The port; 0 for any.

    Raises:
        CommandError: If the address cannot be had; exit code 2.
    """

    def __init__(self, client: Client, host: str, port: int) -> None:
        metrics = _metrics(client)

        class Handler(BaseHTTPRequestHandler):
            timeout = LONGEST_S  # for one read; service_actions() sees to the whole

            def do_GET(self) -> None:
                self.wfile.write(self._head())

            def do_HEAD(self) -> None:
                self._head()

            def _head(self) -> bytes:
                """Send all but the body; return that."""
                status, kind, body = 404, "text/plain", b"one of /livez, /readyz, /metrics\n"
                match self.path.partition("?")[0]:
                    case "/livez":
                        status, body = 200, b"ok\n"
                    case "/readyz":
                        problems = client.problems
                        status = 503 if problems else 200
                        body = "".join(f"{each}\n" for each in problems or ("ok",)).encode()
                    case "/metrics":
                        status, kind, body = metrics()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                return body

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds; nobody wants to read of them."""

        try:
            self._server = _server(host, port, Handler)
        except (OSError, OverflowError) as error:
            problem = f"cannot listen on {host}:{port}: {getattr(error, 'strerror', error)}"
            raise CommandError(problem, ExitCode.usage) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="riverrun.probes")

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _server(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = Server((host, port), handler)
    close_in_child(server)
    return server


class _Server(ThreadingHTTPServer):
    """A server that a caller cannot fill: connections are few, and end in time."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self._open_lock = threading.Lock()  # guards _open
        self._open: dict[socket.socket, float] = {}  # since when; the oldest first
        super().__init__(*args)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a call; a child that is forked meanwhile must not keep its caller waiting."""
        connection, caller = super().get_request()
        close_in_child(connection)
        return connection, caller

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; where there are too many, the oldest caller has to go."""
        with self._open_lock:
            if len(self._open) >= MOST:
                _hang_up(next(iter(self._open)))
            refused = len(self._open) >= 2 * MOST
            if not refused:
                self._open[request] = time.monotonic()
        if refused:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the process may have no more threads
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection."""
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Hang up on callers whose time is over; called every half second."""
        now = time.monotonic()
        with self._open_lock:
            late = [each for each, since in self._open.items() if now - since > LONGEST_S]
        for each in late:
            _hang_up(each)

    def handle_error(self, *_: object) -> None:
        """A caller that goes before it was answered is none of our errors."""
        logger.debug("a probe failed: %s", sys.exc_info()[1])


def _metrics(client: Client) -> Any:
    try:
        from prometheus_client import REGISTRY
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        from riverrun.instrumentation.prometheus import instrument
    except ImportError:
        return lambda: (501, "text/plain", b"pip install 'riverrun[prometheus]'\n")
    instrument(client, registry=REGISTRY)
    return lambda: (200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))


def _hang_up(connection: socket.socket) -> None:
    # Its thread, which reads or writes, finds the end and closes it.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)

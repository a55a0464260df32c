"""HTTP probes of a working client: /livez, /readyz, and /metrics for Prometheus."""

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
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)

CONNECTIONS_MAX = 16
"""Maximum number of connections at once; for another one, the oldest is closed."""

LONGEST_S = 10.0
"""Seconds after which a connection is closed, even if data still comes in."""


class Probes:
    """A small HTTP server, in a thread of its own, that answers probes of a client.

    Args:
        client: The client to report on.
        host: The address to listen on.
        port: The port; 0 for any free one.

    Raises:
        CommandError: If the server cannot listen there; exit code 2.
    """

    def __init__(self, client: Client, host: str, port: int) -> None:
        metrics = _metrics(client)

        class Handler(BaseHTTPRequestHandler):
            timeout = LONGEST_S  # for one read; service_actions() limits the whole connection

            def do_GET(self) -> None:
                self.wfile.write(self._head())

            def do_HEAD(self) -> None:
                self._head()

            def _head(self) -> bytes:
                """Send the status and the headers; return the body."""
                status, kind, body = 404, "text/plain", b"one of /livez, /readyz, /metrics\n"
                match self.path.partition("?")[0]:
                    case "/livez":
                        status, body = 200, b"ok\n"
                    case "/readyz":
                        problems = client.problems
                        status = 503 if problems else 200
                        body = "".join(f"{line}\n" for line in problems or ("ok",)).encode()
                    case "/metrics":
                        status, kind, body = metrics()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                return body

            def log_message(self, *_: object) -> None:
                """Log nothing: probes come every few seconds."""

        try:
            self._server = _server(host, port, Handler)
        except (OSError, OverflowError) as error:
            problem = f"cannot listen on {host}:{port}: {getattr(error, 'strerror', error)}"
            raise CommandError(problem, ExitCode.usage) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="riverrun.probes")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, and close the socket."""
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
    """A server with a limit on the number and the duration of its connections."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self._open_lock = threading.Lock()  # guards _open
        self._open: dict[socket.socket, float] = {}  # connection: when it began; oldest first
        super().__init__(*args)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; a child forked meanwhile must not keep it open."""
        connection, caller = super().get_request()
        close_in_child(connection)
        return connection, caller

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; if there are too many connections, close the oldest."""
        with self._open_lock:
            if len(self._open) >= CONNECTIONS_MAX:
                _hang_up(next(iter(self._open)))
            refused = len(self._open) >= 2 * CONNECTIONS_MAX
            if not refused:
                self._open[request] = time.monotonic()
        if refused:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the process cannot start another thread
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection."""
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close connections that have lasted too long. Called every half second."""
        now = time.monotonic()
        with self._open_lock:
            late = [connection for connection, at in self._open.items() if now - at > LONGEST_S]
        for connection in late:
            _hang_up(connection)

    def handle_error(self, *_: object) -> None:
        """Log at DEBUG only: a caller that leaves before its answer is not an error of ours."""
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
    # The thread that reads or writes it then sees the end, and closes the socket.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)

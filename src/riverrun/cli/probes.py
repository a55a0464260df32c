"""Probes over HTTP beside a working client: /livez, /readyz, and /metrics for Prometheus."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from riverrun.cli.app import CommandError, ExitCode
from riverrun.client import Client


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
            def do_GET(self) -> None:
                status, kind, body = 404, "text/plain", b"one of /livez, /readyz, /metrics\n"
                if self.path == "/livez":
                    status, body = 200, b"ok\n"
                elif self.path == "/readyz":
                    problem = _problem(client)
                    status, body = (503, problem.encode()) if problem else (200, b"ok\n")
                elif self.path == "/metrics":
                    status, kind, body = metrics()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds; nobody wants to read of them."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            problem = f"cannot listen on {host}:{port}: {error.strerror}"
            raise CommandError(problem, ExitCode.usage) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="riverrun.probes")

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _problem(client: Client) -> str | None:
    """Return why no jobs are worked now; None if they are."""
    if not client.running:
        return "the client does not run\n"
    try:
        with client.engine.connect() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '2s'"))
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        return f"the database: {type(error).__name__}\n"
    return None


def _metrics(client: Client) -> Any:
    try:
        from prometheus_client import REGISTRY
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        from riverrun.instrumentation.prometheus import instrument
    except ImportError:
        return lambda: (501, "text/plain", b"pip install 'riverrun[prometheus]'\n")
    instrument(client, registry=REGISTRY)
    return lambda: (200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))

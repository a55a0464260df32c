"""Serves applications over HTTP from threads of the test's own process, and asks them."""

import http.client
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs
import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server

from network import free_ports
from waiting import DEADLINE_S, until

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@attrs.frozen
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    text: str


def ask(
    url: str,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> Answer:
    """Return the answer to a GET, or to the POST of a form; follow no redirect."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE_S)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    sent = dict(headers or {})
    if form is not None:
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    body = None if form is None else urlencode(form)
    try:
        connection.request("GET" if form is None else "POST", target, body, sent)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
    finally:
        connection.close()


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def wsgi(application: WSGIApp) -> Iterator[str]:
    """Serve a WSGI application; yield its address, without a slash at the end."""
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(
        target=server.serve_forever, name="wsgi", kwargs={"poll_interval": 0.05}
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def asgi(application: Any, *, root_path: str = "") -> Iterator[str]:
    """Serve an ASGI application with uvicorn; yield its address, without a slash at the end."""
    port = free_ports(1)
    config = uvicorn.Config(
        application, port=port, root_path=root_path, log_level="warning", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="asgi")
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "uvicorn's start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def stripping_proxy(backend: str, prefix: str) -> WSGIApp:
    """Return a proxy that serves `backend` below `prefix`, and says so in `X-Forwarded-Prefix`."""

    def proxy(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith(f"{prefix}/"):
            start_response("404 Not Found", [])
            return [b"not below the prefix"]
        url = backend + environ["PATH_INFO"].removeprefix(prefix)
        query = environ.get("QUERY_STRING")
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").title(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") and name != "HTTP_CONNECTION"
        }
        form = None
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            form = dict(each.split("=", 1) for each in body.decode().split("&") if each)
        headers.update({"X-Forwarded-Prefix": prefix, "X-Forwarded-Host": environ["HTTP_HOST"]})
        answer = ask(f"{url}?{query}" if query else url, headers, form)
        kept = {"content-type", "location", "set-cookie", "content-security-policy", "etag"}
        sent = [(name, value) for name, value in answer.headers.items() if name.lower() in kept]
        start_response(f"{answer.status} Proxied", sent)
        return [answer.text.encode()]

    return proxy

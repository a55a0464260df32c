"""Responses: a status, headers that keep a browser strict, and a body."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import attrs

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

ALWAYS = (
    ("Content-Security-Policy", CSP),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Headers of every response."""

NO_STORE = ("Cache-Control", "no-store")

HTML = "text/html; charset=utf-8"


@attrs.frozen(kw_only=True)
class Response:
    """What the dashboard answers.

    Attributes:
        body: The body.
        status: The status. Default: 200.
        content_type: The type of the body. Default: HTML.
        headers: Further headers.
        immutable: Whether the body may be kept for ever. Otherwise it may not be kept at all.
    """

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = HTML
    headers: tuple[tuple[str, str], ...] = ()
    immutable: bool = False

    def send(self, start_response: Callable[..., Any], *, head: bool) -> Iterable[bytes]:
        """Send the response to a WSGI server.

        Args:
            start_response: The server's function.
            head: Whether the request was a HEAD, so that no body is sent.
        """
        headers = [*ALWAYS, *self.headers]
        if self.immutable:
            headers.append(("Cache-Control", "public, max-age=31536000, immutable"))
        else:
            headers.append(NO_STORE)
        if self.status is not HTTPStatus.NOT_MODIFIED:
            headers += [
                ("Content-Type", self.content_type),
                ("Content-Length", str(len(self.body))),
            ]
        start_response(f"{self.status.value} {self.status.phrase}", headers)
        return [] if head or not self.body else [self.body]


def see_other(address: str, *headers: tuple[str, str]) -> Response:
    """Return a redirect that a browser follows with GET.

    Args:
        address: Where to go.
        *headers: Further headers.
    """
    return Response(status=HTTPStatus.SEE_OTHER, headers=(("Location", address), *headers))


def download(body: bytes, name: str, content_type: str) -> Response:
    """Return a file that a browser saves and does not show.

    Args:
        body: What is in it.
        name: Its name.
        content_type: Its type.
    """
    quoted = quote(name, safe="")
    disposition = ("Content-Disposition", f"attachment; filename*=UTF-8''{quoted}")
    return Response(body=body, content_type=content_type, headers=(disposition,))

"""Signs in the user who opens a one-time link, for a dashboard without a host application."""

import secrets
import threading
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from riverrun.web.users import User

PATH = "/sign-in"

HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)

# Not a redirect: a browser that follows the link from another site would redirect without the
# cookie, as it is SameSite=Strict. Here the second request comes from this page.
SIGNED_IN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Signed in</title>
<meta http-equiv="refresh" content="0; url=./"></head>
<body><p>Signed in. <a href="./">Open the dashboard</a></p></body></html>
"""

REFUSED = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Not signed in</title></head>
<body><h1>Not signed in</h1>
<p>Open the newest link that the command has printed. Each link works once.</p></body></html>
"""

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class OneTimeLink:
    """A link that works once, and the cookie that it leaves in the browser.

    Args:
        user: The user to sign in.
        cookie: The name of the cookie. Browsers send cookies to every port of a host, so the name
            should contain the port.
        on_used: Called after a link was used and replaced by another one.
    """

    def __init__(self, user: User, *, cookie: str, on_used: Callable[[], object]) -> None:
        self._user = user
        self._cookie = cookie
        self._on_used = on_used
        self._lock = threading.Lock()  # guards the token and the sessions
        self._token = secrets.token_urlsafe(32)
        self._sessions: list[str] = []

    @property
    def path(self) -> str:
        """The path and query of the current link."""
        return f"{PATH}?token={self._token}"

    def authorize(self, environ: dict[str, Any]) -> User | None:
        """Return the user if the request has the cookie: the `authorize` of a Dashboard."""
        try:
            cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        except CookieError:
            return None
        given = cookies[self._cookie].value if self._cookie in cookies else ""
        with self._lock:
            known = any(_same(given, session) for session in self._sessions)
        return self._user if known else None

    def around(self, dashboard: WSGIApp) -> WSGIApp:
        """Return a WSGI application: the link, and the dashboard for those who have used it."""

        def application(
            environ: dict[str, Any], start_response: Callable[..., Any]
        ) -> Iterable[bytes]:
            if environ["PATH_INFO"] == PATH and environ["REQUEST_METHOD"] == "GET":
                session = self._session(environ)
                if session is not None:
                    self._on_used()
                    attributes = "Path=/; HttpOnly; SameSite=Strict"
                    cookie = ("Set-Cookie", f"{self._cookie}={session}; {attributes}")
                    start_response("200 OK", [*HEADERS, cookie])
                    return [SIGNED_IN.encode()]
            elif self.authorize(environ) is not None:
                return dashboard(environ, start_response)
            start_response("403 Forbidden", list(HEADERS))
            return [REFUSED.encode()]

        return application

    def _session(self, environ: dict[str, Any]) -> str | None:
        """Return a new session if the request has the token, which is replaced; else None."""
        given = parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
        with self._lock:
            if not _same(given, self._token):
                return None
            self._token = secrets.token_urlsafe(32)
            self._sessions.append(secrets.token_urlsafe(32))
            return self._sessions[-1]


def _same(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode(errors="replace"), secret.encode())

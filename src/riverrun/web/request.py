"""Requests: what the dashboard reads of a WSGI environ, and the addresses it links to."""

import re
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import attrs

from riverrun.web.errors import BadRequest
from riverrun.web.users import User

BODY_MAX = 4 * 1024 * 1024
"""Maximum number of bytes of a form."""

FIELDS_MAX = 1_200
"""Maximum number of fields of a form or of a query."""

FORMATS = ("json", "csv", "html")

_ONCE = frozenset({"done", "count"})
"""Fields about an action that was just done, which no link repeats."""

_PLAIN = re.compile(r"[A-Za-z0-9_][^/\\?#%;\x00-\x20\x7f]*")
"""Names that stand for themselves in a path. A browser or a proxy may change others."""


@attrs.frozen(kw_only=True)
class Request:
    """A request.

    Attributes:
        method: GET or POST. A HEAD counts as GET.
        origin: The scheme and the host, as in https://ops.example.com.
        base: Where the dashboard is mounted, without a slash at the end.
        path: The path below that, without the name of a format.
        format: html, json or csv.
        query: The fields of the query, in order.
        form: The fields of the form that was posted, in order.
        cookies: The cookies.
        etag: The version that the browser has, from `If-None-Match`.
        user: Who asks.
    """

    method: str
    origin: str
    base: str
    path: str
    format: str
    query: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = ()
    cookies: Mapping[str, str] = attrs.field(factory=dict)
    etag: str | None = None
    user: User

    def one(self, name: str) -> str | None:
        """Return the last value of `name` in the query; None if there is none or it is empty."""
        return last(self.query, name)

    def all(self, name: str) -> tuple[str, ...]:
        """Return the values of `name` in the query that are not empty."""
        return tuple(value for key, value in self.query if key == name and value)

    def posted(self, name: str) -> str | None:
        """Return the last value of `name` in the form; None if there is none or it is empty."""
        return last(self.form, name)

    def url(self, path: str, query: Iterable[tuple[str, object]] = ()) -> str:
        """Return the address of a page.

        Args:
            path: Its path below the dashboard, with a slash first.
            query: The fields of its query. Those whose value is None are left out.
        """
        fields = [(key, str(value)) for key, value in query if value is not None]
        text = urlencode(fields, errors="replace")
        return f"{self.base}{quote(path, safe='/:+@,|~')}{'?' if text else ''}{text}"

    def named(self, path: str, name: str, query: Iterable[tuple[str, object]] = ()) -> str:
        """Return the address of the page of what is named `name`, whatever the name is."""
        if not _PLAIN.fullmatch(name):
            return self.url(f"{path}/-", [("name", name), *query])
        # Or the name would be taken for one with a format behind it.
        suffix = ".html" if name.rpartition(".")[2] in FORMATS else ""
        return self.url(f"{path}/{name}{suffix}", query)

    def as_format(self, name: str) -> str:
        """Return the address of this page in the format `name`."""
        path = "/overview" if self.path == "/" else self.path
        kept = [(key, value) for key, value in self.query if key not in _ONCE]
        return self.url(f"{path}.{name}", kept)

    def again(self, **changes: object) -> str:
        """Return the address of this page with changes to its query. None removes a field."""
        left_out = _ONCE | changes.keys()
        kept = [(key, value) for key, value in self.query if key not in left_out]
        return self.url(self.path, [*kept, *changes.items()])

    @property
    def here(self) -> str:
        """The address of this page, to come back to: its path and query below the dashboard.

        A page that was made by a POST has none; it is that of the page before.
        """
        if self.method == "POST":
            return self.posted("back") or "/"
        return self.again()[len(self.base) :]

    def back(self, **more: object) -> str:
        """Return the address of the page on which the form of this request was filled in.

        Args:
            **more: Fields to set in the page's query.
        """
        return self.local(self.posted("back") or "/", **more)

    def local(self, given: str, **more: object) -> str:
        """Return the address of a page that a request names; the first page if it leads elsewhere.

        Args:
            given: The page's path and query below the dashboard.
            **more: Fields to set in the query.
        """
        path, _, query = given.partition("?")
        path = unquote(path, errors="replace")
        # A browser takes // for the beginning of another host, and the quoted rest for a path.
        if not path.startswith("/") or path.startswith("//"):
            path, query = "/", ""
        fields = [(key, value) for key, value in _fields(query) if key not in more]
        return self.url(path, [*fields, *more.items()])


def last(fields: Iterable[tuple[str, str]], name: str) -> str | None:
    """Return the last value of `name`; None if there is none or it is empty."""
    found = None
    for key, value in fields:
        if key == name:
            found = value
    return found or None


def base_of(environ: Mapping[str, Any]) -> str:
    """Return where the dashboard is mounted, as it stands in addresses."""
    return quote(str(environ.get("SCRIPT_NAME") or "").encode("latin-1", "replace")).rstrip("/")


def origin_of(environ: Mapping[str, Any]) -> str:
    """Return the scheme and the host of a request."""
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME") or "localhost"
    return f"{environ.get('wsgi.url_scheme') or 'http'}://{host}"


def path_of(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Return the path below the dashboard, and the format that its end names."""
    raw = str(environ.get("PATH_INFO") or "/").encode("latin-1", "replace")
    path = raw.decode("utf-8", "replace")
    path = path.rstrip("/") if path.startswith("/") else f"/{path}"
    stem, dot, suffix = path.rpartition(".")
    if dot and suffix in FORMATS and not stem.endswith("/"):
        return stem, suffix
    return path or "/", "html"


def query_of(environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the fields of the query.

    Raises:
        BadRequest: If there are too many.
    """
    return _fields(str(environ.get("QUERY_STRING") or ""))


def form_of(environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a form.

    Raises:
        BadRequest: If it is too large, or no form.
    """
    kind = str(environ.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadRequest("form")
    length = str(environ.get("CONTENT_LENGTH") or "")
    if not length.isascii() or not length.isdigit() or len(length) > 9 or int(length) > BODY_MAX:
        raise BadRequest("body")
    body: bytes = environ["wsgi.input"].read(int(length))
    return _fields(body.decode("utf-8", "replace"))


def cookies_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the cookies; none if they cannot be read."""
    try:
        jar = SimpleCookie(str(environ.get("HTTP_COOKIE") or ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}


def is_same_origin(environ: Mapping[str, Any]) -> bool:
    """Return whether a page of the dashboard's own origin sends the request.

    Browsers state it in `Sec-Fetch-Site` where the address is one of https or of this machine.
    Elsewhere the origin's host has to be the one that was asked.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return bool(site == "same-origin")
    origin = str(environ.get("HTTP_ORIGIN") or "")
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    host = environ.get("HTTP_HOST")
    return bool(parts.scheme in {"http", "https"} and host and parts.netloc == host)


def _fields(text: str) -> tuple[tuple[str, str], ...]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BadRequest("fields") from None
    return tuple(pairs)

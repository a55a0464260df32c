"""A dashboard, and a browser without a screen that asks it for pages by WSGI."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import attrs
from sqlalchemy import Engine, event

from riverrun.web import Dashboard, User

HOST = "jobs.example"


@attrs.frozen
class Answer:
    """What a dashboard has answered."""

    status: int
    headers: Mapping[str, str]
    cookies: list[str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def page(self) -> "Html":
        page = Html()
        page.feed(self.text)
        page.close()
        return page


class Html(HTMLParser):
    """What a page has: its elements, each with its attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def links(self) -> list[str]:
        return [each["href"] or "" for each in self.all("a") if "href" in each]


class Site:
    """Asks a dashboard for pages, as a browser would that is mounted at `base`.

    Args:
        on: A Client or an Engine.
        base: Where the dashboard is mounted.
        **options: The dashboard's options. Default: a user with every right.
    """

    def __init__(self, on: Any, base: str = "/ops/jobs", **options: Any) -> None:
        options.setdefault("authorize", lambda environ: User.all("ada"))
        self.dashboard = Dashboard(on, **options)
        self.base = base
        self.cookies: dict[str, str] = {}

    def get(self, address: str, **environ: Any) -> Answer:
        return self.ask("GET", address, **environ)

    def post(
        self, address: str, form: Any = (), /, *, site: str | None = "same-origin", **environ: Any
    ) -> Answer:
        body = urlencode(form, doseq=True).encode()
        given = {
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        if site is not None:
            given["HTTP_SEC_FETCH_SITE"] = site
        return self.ask("POST", address, **{**given, **environ})

    def ask(self, method: str, address: str, **environ: Any) -> Answer:
        """Ask for an address below the dashboard, or for one that a page links to."""
        parts = urlsplit(address if address.startswith("/") else f"/{address}")
        path = unquote(parts.path, errors="surrogateescape")
        if self.base and path.startswith(self.base):
            path = path[len(self.base) :]
        given = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": self.base.encode().decode("latin-1"),
            "PATH_INFO": path.encode(errors="surrogateescape").decode("latin-1"),
            "QUERY_STRING": parts.query,
            "HTTP_HOST": HOST,
            "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            "wsgi.input": io.BytesIO(),
            "wsgi.url_scheme": "https",
        }
        started: list[Any] = []
        chunks = self.dashboard(
            {**given, **environ}, lambda status, headers: started.append((status, headers))
        )
        body = b"".join(chunks)
        [(status, headers)] = started
        return Answer(
            int(status.split()[0]),
            {name.lower(): value for name, value in headers},
            [value for name, value in headers if name == "Set-Cookie"],
            body,
        )


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that are executed on an engine."""
    seen: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)

"""The dashboard in a real browser: one Chromium for each module, one context for each test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.schema import DropSchema

from browser.rows import fill
from needs import need
from riverrun import Client
from riverrun.web import Dashboard, User
from schemas import new_schema_name
from serving import wsgi

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DEADLINE_MS = 30_000
"""Milliseconds that a step of a test may take, on a machine with other work."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
)

BASE = "/admin/jobs"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """The system's Chromium.

    For a module and no longer: until Playwright is stopped its event loop runs in this thread, and
    no other test could run one.
    """
    from browser.driver import expect, sync_playwright

    executable = need("chromium")
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, headless=True, args=[*FLAGS], timeout=2 * DEADLINE_MS
        )
        yield browser
        browser.close()


@attrs.frozen
class Visit:
    """A page of a browser, and what must not happen on it.

    Attributes:
        page: The page.
        root: The address that the dashboard is at, without a slash at the end.
        problems: What the browser has complained about, and requests to other hosts.
        expected: Parts of complaints that a test provokes.
    """

    page: "Page"
    root: str
    problems: list[str]
    expected: list[str]

    def open(self, path: str) -> "Page":
        """Open a page of the dashboard."""
        self.page.goto(f"{self.root}{path}")
        return self.page

    def unexpected(self) -> list[str]:
        """Return the complaints that no test provokes."""
        return [each for each in self.problems if not any(part in each for part in self.expected)]


Visiting = Callable[..., Any]
"""Opens a context: `visiting(root, **options of the context)`; yields a Visit."""


@pytest.fixture
def visiting(browser: "Browser") -> Visiting:
    """A function that opens a context of its own, and fails if the browser complains."""

    @contextmanager
    def visiting(root: str, **options: Any) -> Iterator[Visit]:
        context = browser.new_context(**options)
        context.set_default_timeout(DEADLINE_MS)
        try:
            page = context.new_page()
            visit = Visit(page, root, [], [])
            host = "/".join(root.split("/")[:3])

            def console(message: Any) -> None:
                if message.type in {"error", "warning"}:
                    visit.problems.append(f"{message.type}: {message.text} at {page.url}")

            def requested(request: Any) -> None:
                if not request.url.startswith((f"{host}/", "data:", "about:")):
                    visit.problems.append(f"a request to {request.url}")

            page.on("console", console)
            page.on("pageerror", lambda error: visit.problems.append(f"{error} at {page.url}"))
            page.on("request", requested)
            yield visit
            assert visit.unexpected() == []
        finally:
            context.close()

    return visiting


@pytest.fixture(scope="package")
def filled(engine: Engine, copied: Callable[[str], str]) -> Iterator[Client]:
    """A client whose tables have rows of every sort; for tests that only look."""
    name = new_schema_name("browser")
    with engine.begin() as connection:
        connection.connection.cursor().execute(copied(name))
    client = Client(engine, schema=name)
    fill(client)
    yield client
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(DropSchema(name, cascade=True))


@pytest.fixture(scope="package")
def gallery(filled: Client) -> Iterator[str]:
    """The address of a dashboard on the filled tables."""
    pages = Dashboard(filled, authorize=lambda _: User.all("ada"))
    with wsgi(below(BASE, pages)) as root:
        yield f"{root}{BASE}"


def below(base: str, application: Any) -> Any:
    """Return a WSGI application that has `application` below `base`, and nothing else."""

    def routed(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if not path.startswith(base):
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        below = {"SCRIPT_NAME": base, "PATH_INFO": path.removeprefix(base)}
        return application({**environ, **below}, start_response)

    return routed

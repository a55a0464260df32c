"""How pages look and refresh: colours, time zones, tabs that are hidden or idle."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from browser.conftest import BASE, Visiting, below
from browser.driver import expect
from factories import T0, insert_job
from riverrun import Client
from riverrun.web import Dashboard, User
from serving import wsgi

EVERY_5_S = 6_000
"""Milliseconds after which a list has been refreshed."""

HIDEABLE = "Object.defineProperty(document, 'hidden', {get: () => Boolean(window.isHidden)})"


@pytest.fixture
def root(engine: Engine, schema: str) -> Iterator[str]:
    """The address of a dashboard with one job."""
    insert_job(engine, schema, kind="send_email", state="completed", finalized_at=T0)
    client = Client(engine, schema=schema)
    with wsgi(below(BASE, Dashboard(client, authorize=lambda _: User.all("ada")))) as root:
        yield f"{root}{BASE}"


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_colours_are_chosen(visiting: Visiting, root: str, scripts: bool) -> None:
    """A reader may choose dark colours where the system has light ones; the choice stays."""
    with visiting(root, java_script_enabled=scripts, color_scheme="light") as visit:
        page = visit.open("/jobs")
        page.get_by_role("button", name="Dark").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect(page.locator("body")).to_have_css("background-color", "rgb(19, 21, 23)")
        page = visit.open("/")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_times_are_shown_in_the_readers_zone(visiting: Visiting, root: str) -> None:
    """Times are UTC, or those of the reader's zone if the reader wishes."""
    with visiting(root, timezone_id="America/New_York") as visit:
        page = visit.open("/jobs/1")
        expect(page.get_by_text("2026-03-01 12:00:00").first).to_be_visible()
        page.get_by_role("button", name="Local").click()
        expect(page.get_by_text("2026-03-01 07:00:00").first).to_be_visible()


def test_tabs_that_are_hidden_or_idle(visiting: Visiting, root: str) -> None:
    """A hidden tab asks nothing; where nothing has changed, no page is sent again."""
    with visiting(root) as visit:
        visit.page.add_init_script(HIDEABLE)
        visit.page.clock.install()
        page = visit.open("/jobs?state=completed")
        for status in (200, 304):
            with page.expect_response(lambda answer: "/jobs?" in answer.url) as answer:
                page.clock.fast_forward(EVERY_5_S)
            assert answer.value.status == status
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.evaluate("window.isHidden = true")
        for _ in range(3):
            page.clock.fast_forward(EVERY_5_S)
        assert asked == []
        page.evaluate("window.isHidden = false")
        with page.expect_response(lambda answer: "/jobs?" in answer.url):
            page.clock.fast_forward(EVERY_5_S)

"""The link of `riverrun dashboard`, opened in a browser."""

from typing import Any

from sqlalchemy import Engine

from browser.conftest import Visiting
from browser.driver import expect
from factories import insert_job
from riverrun.web import Dashboard, User
from riverrun.web.one_time_link import OneTimeLink
from serving import wsgi


def test_a_link_from_elsewhere(visiting: Visiting, engine: Engine, schema: str) -> None:
    """A link in a page of another site signs the browser in; its cookie is no other site's."""
    insert_job(engine, schema, kind="send_email")
    link = OneTimeLink(User.all("ada"), cookie="riverrun_test", on_used=lambda: None)
    pages = link.around(Dashboard(engine, authorize=link.authorize, schema=schema))

    with wsgi(pages) as root:

        def chat(_: Any, start_response: Any) -> Any:
            start_response("200 OK", [("Content-Type", "text/html")])
            page = (
                f"<!doctype html><link rel=icon href='data:,'><a href='{root}{link.path}'>Look</a>"
            )
            return [page.encode()]

        with wsgi(chat) as elsewhere, visiting(root) as visit:
            visit.expected.extend(["status of 403", "a request to"])
            page = visit.open("/jobs")
            expect(page.get_by_role("heading", level=1)).to_have_text("Not signed in")
            page.goto(elsewhere.replace("127.0.0.1", "localhost"))
            page.get_by_role("link", name="Look").click()
            expect(page).to_have_url(f"{root}/")
            expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
            page = visit.open("/jobs")
            expect(page.get_by_text("send_email")).to_be_visible()
            (cookie,) = page.context.cookies()
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")

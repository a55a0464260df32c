"""Each page in a browser: readable for all, in light and dark, and on a narrow screen."""

from typing import Any

import pytest

from browser.conftest import BASE, Visit, Visiting
from browser.driver import expect
from browser.rows import BIG
from riverrun import Client, JobListParams, verbs
from riverrun.web.routes import MENU

SECTIONS = [path for _, path, _ in MENU]

TOO_WIDE = """
[...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5)
  .map((each) => `${each.tagName} ${each.className} ${each.getBoundingClientRect().right}`)
"""
"""The elements that stick out on the right, for the message of a failure."""


COLOURS = {"runOnly": ["color-contrast"]}
"""The rule of axe that depends on colours."""


def check(visit: Visit, path: str) -> Any:
    """Open a page, and fail if it violates a rule of axe or does not fit a narrow screen."""
    from axe_playwright_python.sync_playwright import Axe

    visit.page.set_viewport_size({"width": 1280, "height": 720})
    page = visit.open(path)
    for scheme, options in (("light", None), ("dark", COLOURS)):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options=options)
        assert found.violations_count == 0, f"{path}, {scheme}: {found.generate_report()}"
    page.set_viewport_size({"width": 390, "height": 844})
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, f"{path}: {page.evaluate(TOO_WIDE)}"
    return page


def linked(page: Any, section: str) -> list[str]:
    """Return the pages that a section links to: the first one of each sort."""
    found: dict[str, str] = {}
    for address in page.eval_on_selector_all(
        "main a[href]", "all => all.map(a => a.pathname + a.search)"
    ):
        path = address.removeprefix(BASE)
        sort = path.partition("?")[0].split("/")[1]
        if path.startswith((f"{section.rstrip('/')}/", "/confirm", "/switch")) and sort:
            found.setdefault(sort, path)
    return list(found.values())


@pytest.mark.parametrize("section", SECTIONS)
def test_a_page_is_accessible(visiting: Visiting, gallery: str, section: str) -> None:
    """A page violates no rule of axe in light or dark, fits 390 pixels, and loads only its own."""
    with visiting(gallery) as visit:
        page = check(visit, section)
        expect(page.locator("nav.menu a[aria-current]")).to_have_count(1)
        if section != "/":
            for path in linked(page, section):
                check(visit, path)


def test_jobs_of_every_sort(visiting: Visiting, gallery: str, filled: Client) -> None:
    """Jobs with steps, logs, 200 kB of args, hostile names and the largest id are shown."""
    jobs = verbs.list_jobs(filled.engine, JobListParams(limit=1_000), schema=filled.schema).jobs
    odd = [job for job in jobs if job.kind in {"build_report", "huge", "last"} or "<" in job.kind]
    assert len(odd) == 5
    with visiting(gallery) as visit:
        for job in odd:
            check(visit, f"/jobs/{job.id}")
            expect(visit.page.get_by_role("heading", level=1)).to_contain_text(str(job.id))
        expect(visit.page.get_by_text(str(BIG)).first).to_be_visible()


def test_forms_of_a_job(visiting: Visiting, gallery: str, filled: Client) -> None:
    """The pages on which a job is copied, due at another time, or changed with many others."""
    params = JobListParams(states=["available"], kinds=["archive"])
    (job,) = verbs.list_jobs(filled.engine, params, schema=filled.schema).jobs
    matching = f"state=completed&newest={BIG}"
    with visiting(gallery) as visit:
        for path in (
            f"/jobs/{job.id}/copy",
            f"/jobs/{job.id}/run_at",
            f"/confirm?action=delete&{matching}",
            f"/progress?action=retry&{matching}&reached=1&done=5&left=7",
        ):
            if path.startswith("/progress"):
                # It goes on by itself; without an answer the browser stays where it is.
                visit.page.route("**/act", lambda route: route.fulfill(status=204))
            check(visit, path)


def test_a_page_that_is_not_there(visiting: Visiting, gallery: str) -> None:
    """A wrong address gives a page that can be read as well as all others."""
    with visiting(gallery) as visit:
        visit.expected.append("status of 404")
        page = check(visit, "/no-such-page")
        expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


def test_pages_without_scripts(visiting: Visiting, gallery: str) -> None:
    """With scripts off every page of the menu is reached by its links, and shows the same rows."""
    with visiting(gallery, java_script_enabled=False) as visit:
        page = visit.open("/")
        for name, path, _ in MENU:
            page.locator(f'nav.menu a[href="{BASE}{path}"]').click()
            expect(page).to_have_url(f"{gallery}{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert page.locator(".scripted:visible, .live:visible").count() == 0, name

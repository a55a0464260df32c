"""Each page in a browser: readable for all, in light and dark, and on a narrow screen."""

import pytest

from browser.conftest import Visiting

PAGES = ("/jobs", "/jobs?state=discarded&kind=charge_card")

TOO_WIDE = """
[...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5)
  .map((each) => `${each.tagName} ${each.className} ${each.getBoundingClientRect().right}`)
"""
"""The elements that stick out on the right, for the message of a failure."""


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_accessible(visiting: Visiting, gallery: str, path: str) -> None:
    """A page violates no rule of axe in light or dark, fits 390 pixels, and loads only its own."""
    from axe_playwright_python.sync_playwright import Axe

    with visiting(gallery) as visit:
        page = visit.open(path)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page)
            assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"
        page.set_viewport_size({"width": 390, "height": 844})
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, page.evaluate(TOO_WIDE)

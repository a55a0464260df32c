"""docs/promises.md: the tests that it names exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "promises.md"
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_promise_has_tests_and_they_exist() -> None:
    """Each row of the page names tests, and each of them exists."""
    page = PAGE.read_text()
    missing = [
        f"{file}::{name}"
        for file, name in NAMED.findall(page)
        if not (TESTS / file).exists()
        or not re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)
    ]
    assert not missing
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert [row for row in rows if not NAMED.search(row)] == ["| Promise | Tests |"] * 8
    assert page.count("::") == len(NAMED.findall(page)), "a test is named in another form"

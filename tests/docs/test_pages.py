"""The README and the guides of docs/: every block of them is done as a reader would do it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import alembic
import pytest
from sqlalchemy import Engine

from docs.reader import Reader, blocks, broken_links, pages
from riverrun.migrations import migrate

PAGES = {page.name: page for page in pages()}
MIGRATES = ("migrate up", "op.riverrun_migrate", "db upgrade")


@pytest.fixture
def reader(empty_database: Engine, tmp_path: Path) -> Iterator[Reader]:
    """Somebody with an empty folder and an empty database."""
    folder = tmp_path / "app"
    folder.mkdir()
    return Reader(folder, empty_database.url.render_as_string(hide_password=False))


def test_no_block_is_left_out() -> None:
    """Each fenced block is of a language that the reader does something about."""
    for page in PAGES.values():
        ours = [*blocks(page)]
        assert page.read_text().count("```") == 2 * len(ours), f"a fence of {page.name} is not read"
        languages = Counter(block.language for block in ours)
        assert set(languages) <= set(Reader.languages), (page.name, languages)


def test_links_lead_somewhere() -> None:
    """What a page links to in this repository is there."""
    broken = [(page.name, link) for page in PAGES.values() for link in broken_links(page)]
    assert not broken


@pytest.mark.timeout(300)  # a page is many processes, one after another
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_true(name: str, reader: Reader, empty_database: Engine) -> None:
    """What a page shows can be done in its order, and prints what the page says."""
    page = PAGES[name]
    if name == "alembic.md" and not hasattr(alembic.util, "DispatchPriority"):
        pytest.skip("Alembic before 1.18 has no plugins")
    if not any(word in block.body for block in blocks(page) for word in MIGRATES):
        migrate(empty_database)
    try:
        reader.read(page)
    finally:
        reader.close()

"""The README and the guides of docs/: every block of them is done as a reader would do it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import alembic
import attrs
import pytest
from sqlalchemy import Engine

from docs.reader import Reader, blocks, broken_links, pages
from riverrun import InsertOpts, verbs
from riverrun.cli.main import main
from riverrun.ext.settings import _READERS
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


LISTED = {
    "flask.md": [f"_{name.upper()}`" for name in _READERS],
    "jobs.md": [f"`{field.name}`" for field in attrs.fields(InsertOpts)],
    "operating.md": [f"riverrun {name}" for name in main.commands if name not in {"bench", "demo"}],
    "verbs.md": [f"`{name}`" for name in verbs.__all__ if name.islower()],
}
"""What a page's tables and commands claim to have all of."""


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_is_complete(name: str) -> None:
    """A setting, an option, a command or a verb that is new has its place in the guide."""
    said = PAGES[name].read_text()
    assert not [each for each in LISTED[name] if each not in said]


@pytest.mark.timeout(300)  # a page is many processes, one after another
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_true(name: str, reader: Reader, empty_database: Engine) -> None:
    """What a page shows can be done in its order, and prints what the page says."""
    page = PAGES[name]
    if name in {"alembic.md", "flask.md"} and not hasattr(alembic.util, "DispatchPriority"):
        pytest.skip("Alembic before 1.18 has no plugins")
    if not any(word in block.body for block in blocks(page) for word in MIGRATES):
        migrate(empty_database)
    try:
        reader.read(page)
    finally:
        reader.close()

"""The README and the guides of docs/: every block is executed as a reader would."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import alembic
import attrs
import click
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
    """A reader with an empty folder and an empty database."""
    folder = tmp_path / "app"
    folder.mkdir()
    return Reader(folder, empty_database.url.render_as_string(hide_password=False))


def test_no_block_is_left_out() -> None:
    """Each fenced block is of a language that the reader can execute or check."""
    for page in PAGES.values():
        ours = [*blocks(page)]
        assert page.read_text().count("```") == 2 * len(ours), f"a fence of {page.name} is not read"
        languages = Counter(block.language for block in ours)
        assert set(languages) <= set(Reader.languages), (page.name, languages)


def test_links_lead_somewhere() -> None:
    """Links of a page to files of this repository are valid."""
    broken = [(page.name, link) for page in PAGES.values() for link in broken_links(page)]
    assert not broken


LISTED = {
    "flask.md": [f"_{name.upper()}`" for name in _READERS],
    "jobs.md": [f"`{field.name}`" for field in attrs.fields(InsertOpts)],
    "operating.md": [
        f"riverrun {name}"
        for name in main.list_commands(click.Context(main))
        if name not in {"bench", "demo"}
    ],
    "verbs.md": [f"`{name}`" for name in verbs.__all__ if name.islower()],
}
"""The names that a page must list completely."""


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_is_complete(name: str) -> None:
    """The guides name every setting, option, command and verb."""
    text = PAGES[name].read_text()
    assert not [each for each in LISTED[name] if each not in text]


USED = {
    r"^pytest ": "pytest",
    r"^gunicorn ": "gunicorn",
    r"^uvicorn ": "uvicorn",
    r"egg:waitress": "waitress",
    r"^from flask ": "flask",
    r"^from flask_sqlalchemy ": "flask-sqlalchemy",
    r"^from flask_migrate ": "flask-migrate",
    r"^from pyramid": "pyramid",
    r"^import zope.sqlalchemy": "zope.sqlalchemy",
    r"^from fastapi ": "fastapi",
    r"^from prometheus_client ": "prometheus",
    r"^from opentelemetry": "opentelemetry",
    r"^import structlog": "structlog",
    r"^import sentry_sdk": "sentry-sdk",
    r"^from sqlalchemy.ext.asyncio ": "async",
    r"^from riverrun.web ": "web",
}
"""What a command or an import needs: a distribution, or an extra of riverrun's."""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_installs_what_it_uses(name: str) -> None:
    """A page's own `pip install` names all that its commands and files need beside riverrun."""
    lines = [line for block in blocks(PAGES[name]) for line in block.body.splitlines()]
    installed = {
        word
        for line in lines
        if line.startswith("pip install ")
        for word in re.findall(r"[\w.-]+", line.partition("  #")[0])
    }
    used = {word for pattern, word in USED.items() if any(re.search(pattern, x) for x in lines)}
    assert used <= installed


@pytest.mark.timeout(300)  # a page is many processes, one after another
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_true(name: str, reader: Reader, empty_database: Engine) -> None:
    """The steps of a page work in their order, and print what the page shows."""
    page = PAGES[name]
    if name in {"alembic.md", "flask.md"} and not hasattr(alembic.util, "DispatchPriority"):
        pytest.skip("Alembic before 1.18 has no plugins")
    if not any(word in block.body for block in blocks(page) for word in MIGRATES):
        migrate(empty_database)
    try:
        reader.read(page)
    finally:
        reader.close()

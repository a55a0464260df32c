"""`riverrun demo`: a real run, and an audit that detects every kind of failure."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

import riverrun
from riverrun import JobState
from riverrun.cli.main import main
from riverrun.demo import story
from riverrun.demo.audit import audit
from riverrun.demo.browsers import Answer
from riverrun.demo.evidence import Evidence, JobSeen
from riverrun.demo.jobs import KINDS
from waiting import DEADLINE_S, until

KEYS = [
    "requests",
    "request_p50_ms",
    "request_p99_ms",
    "inserted",
    "rolled_back",
    "completed",
    "retried",
    "duplicates_skipped",
    "lost",
    "ran_after_rollback",
    "worked_twice",
    "rescued",
    "rescue_p50_s",
    "seconds",
]

ANN, BOB, EVE = "ann@example.com", "bob@example.com", "eve@example.com"  # Eve was rolled back

GOOD = Evidence(
    answers=[
        *(Answer(email=email, status=201, ms=5.0) for email in (ANN, BOB, BOB)),
        Answer(email=EVE, status=409, ms=10.0),
    ],
    users={ANN: 1, BOB: 2},
    jobs=[
        JobSeen(kind=kind, user_id=user_id, state=JobState.completed, attempt=1)
        for user_id in (1, 2)
        for kind in KINDS
    ],
    mails=[ANN, BOB],
    invoices={1: ANN, 2: BOB},
    renderings=[1, 2],
    crm=[(ANN, 503), (ANN, 201), (BOB, 201)],
    credits=[1, 2],
)

Doctor = Callable[[Evidence], Evidence]


def changed(**changes: object) -> Doctor:
    """Return a function that makes these changes to the evidence."""
    return lambda evidence: attrs.evolve(evidence, **changes)


def command(*arguments: str) -> list[str]:
    """Return the command line of the demo."""
    return [sys.executable, "-m", "riverrun", "demo", *arguments]


def environment() -> dict[str, str]:
    """Return an environment in which Python finds the riverrun under test."""
    source = str(Path(riverrun.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source}


def test_it_keeps_every_promise(database_url: str, engine: Engine) -> None:
    """The demo loses no job, works none twice, and removes its schema."""
    done = subprocess.run(
        command("--json", "--signups", "60", "--database-url", database_url),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == KEYS
    assert (figures["requests"], figures["inserted"], figures["completed"]) == (65, 216, 216)
    assert (figures["rolled_back"], figures["duplicates_skipped"]) == (24, 20)
    assert figures["retried"] > 0
    assert (figures["lost"], figures["ran_after_rollback"], figures["worked_twice"]) == (0, 0, 0)
    assert "SIGKILL to worker-1" in done.stderr
    assert figures["rescued"] > 0
    assert 0 < figures["rescue_p50_s"] < 40
    assert schemas(engine) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_all_it_started(
    database_url: str, engine: Engine, number: signal.Signals
) -> None:
    """After a signal, no process, no file and no schema is left."""
    before = backends(engine)
    with subprocess.Popen(
        command("--signups", "5000", "--database-url", database_url),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def has_begun() -> bool:
            assert process.poll() is None, process.communicate()[1]
            return signed_up(engine)

        until(has_begun, "the first sign-ups")
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 128 + number, errors
    assert output == ""
    assert "interrupted" in errors
    assert schemas(engine) == []
    assert backends(engine) <= before


def test_the_dashboard_of_the_demo(database_url: str, engine: Engine) -> None:
    """With --dashboard people sign up until Ctrl-C, and the printed link shows their jobs."""
    with subprocess.Popen(
        command("--dashboard", "--database-url", database_url),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        link = next(line for line in lines if "until Ctrl-C" in line).partition(": ")[2].strip()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        browser.open(link).close()
        seen: set[str] = set()

        def every_kind_is_shown() -> bool:
            assert process.poll() is None, process.communicate()[1]
            with browser.open(f"{link.partition('/sign-in')[0]}/jobs.json") as answer:
                jobs = json.load(answer)["data"]["jobs"]
            seen.update(job["kind"] for job in jobs)
            return seen >= {*KINDS, "demo_charge_card", "demo_build_report"}

        until(every_kind_is_shown, "a job of each kind on the page", why=lambda: seen)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert output == ""
    assert "stopped" in errors
    assert schemas(engine) == []


def schemas(engine: Engine) -> list[str]:
    """Return the demo's schemas in the database."""
    with engine.connect() as connection:
        statement = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'riverrun_demo%'"
        return list(connection.scalars(text(statement)))


def signed_up(engine: Engine) -> bool:
    """Return whether a user has signed up at the demo in this database."""
    names = schemas(engine)
    with engine.connect() as connection:
        for name in names:
            if connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{name}.demo_user"}):
                return bool(connection.scalar(text(f"SELECT count(*) FROM {name}.demo_user")))
    return False


def backends(engine: Engine) -> set[int]:
    """Return the connections to the database; processes left behind would hold some."""
    with engine.connect() as connection:
        statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        return set(connection.scalars(text(statement)))


def test_the_audit_says_yes_to_good_evidence() -> None:
    """The audit accepts one effect per job, a double click, a rollback and a retry."""
    verdict = audit(GOOD, seconds=1.0)
    assert verdict.good
    assert verdict.complaints == ()
    assert (verdict.inserted, verdict.rolled_back, verdict.duplicates_skipped) == (8, 4, 4)
    assert (verdict.request_p50_ms, verdict.request_p99_ms) == (5.0, 10.0)


def test_a_rescued_job_may_have_its_effect_once_more() -> None:
    """A mail that was sent before its worker was killed may be sent again."""
    killed_at = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    first, *others = GOOD.jobs
    again = attrs.evolve(first, rescues=1, attempted_at=killed_at + timedelta(seconds=21))
    evidence = attrs.evolve(GOOD, jobs=[again, *others], mails=[ANN, ANN, BOB], killed_at=killed_at)
    verdict = audit(evidence, seconds=1.0)
    assert verdict.good
    assert (verdict.rescued, verdict.rescue_p50_s) == (1, 21.0)


DOCTORED = [
    pytest.param(changed(mails=[ANN]), (1, 0, 0), id="a lost mail"),
    pytest.param(changed(mails=[ANN, BOB, BOB]), (0, 0, 1), id="a mail sent twice"),
    pytest.param(changed(mails=[ANN, BOB, EVE]), (0, 1, 0), id="a mail for a rollback"),
    pytest.param(changed(crm=[(ANN, 503), (BOB, 201)]), (1, 0, 0), id="no success at the CRM"),
    pytest.param(changed(crm=[(ANN, 201), (ANN, 201), (BOB, 201)]), (0, 0, 1), id="two at the CRM"),
    pytest.param(
        changed(crm=[(ANN, 201), (BOB, 201), (EVE, 503)]), (0, 1, 0), id="a try for a rollback"
    ),
    pytest.param(changed(invoices={1: ANN}), (1, 0, 0), id="a lost invoice"),
    pytest.param(changed(invoices={1: ANN, 2: ""}), (1, 0, 0), id="half an invoice"),
    pytest.param(changed(invoices={1: ANN, 2: ANN}), (1, 0, 0), id="another's invoice"),
    pytest.param(changed(renderings=[1, 2, 2]), (0, 0, 1), id="an invoice rendered twice"),
    pytest.param(changed(renderings=[1, 2, 3]), (0, 1, 0), id="an invoice for a rollback"),
    pytest.param(changed(credits=[1]), (1, 0, 0), id="a lost credit"),
    pytest.param(changed(credits=[1, 2, 2]), (0, 0, 1), id="a credit given twice"),
    pytest.param(
        changed(jobs=[attrs.evolve(job, rescues=1) for job in GOOD.jobs], credits=[1, 2, 2]),
        (0, 0, 1),
        id="a credit given twice, to a rescue",
    ),
    pytest.param(
        changed(
            jobs=[attrs.evolve(job, rescues=1) for job in GOOD.jobs], mails=[ANN, ANN, ANN, BOB]
        ),
        (0, 0, 1),
        id="a mail for which a rescue does not account",
    ),
    pytest.param(changed(jobs=GOOD.jobs[1:]), (1, 0, 0), id="a job that is gone"),
    pytest.param(
        changed(jobs=[attrs.evolve(GOOD.jobs[0], state=JobState.discarded), *GOOD.jobs[1:]]),
        (1, 0, 0),
        id="a discarded job",
    ),
    pytest.param(
        changed(jobs=[*GOOD.jobs, attrs.evolve(GOOD.jobs[0], user_id=3)]),
        (0, 1, 0),
        id="a job of a rollback",
    ),
    pytest.param(
        changed(answers=[*GOOD.answers, Answer(email="kim@example.com", status=201, ms=1.0)]),
        (4, 0, 0),
        id="a user confirmed and not kept",
    ),
]


@pytest.mark.parametrize(("doctor", "expected"), DOCTORED)
def test_the_command_fails_for_bad_evidence(
    monkeypatch: pytest.MonkeyPatch, doctor: Doctor, expected: tuple[int, int, int]
) -> None:
    """A job that was lost, rolled back but run, or worked twice is counted, and the demo fails."""
    verdict = audit(doctor(GOOD), seconds=1.0)
    assert (verdict.lost, verdict.ran_after_rollback, verdict.worked_twice) == expected
    assert len(verdict.complaints) == sum(expected)
    monkeypatch.setattr(story, "play", lambda **_: verdict)
    result = CliRunner().invoke(main, ["demo", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["lost"] == expected[0]
    assert verdict.complaints[0] in result.stderr


def test_it_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Flask, the demo names it and the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "flask" else name)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 2
    assert "Flask: pip install 'riverrun[demo]'" in result.stderr


@pytest.mark.parametrize("url", ["sqlite://", "nonsense", "mysql://host/db"])
def test_it_refuses_other_databases(url: str) -> None:
    """A URL that is not PostgreSQL's is refused before anything is started."""
    result = CliRunner().invoke(main, ["demo", "--database-url", url])
    assert result.exit_code == 2
    assert "--database-url" in result.stderr


def test_help_loads_no_flask() -> None:
    """`riverrun --help` does not load Flask for the demo."""
    program = "import sys, riverrun.cli.main; sys.exit('flask' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)

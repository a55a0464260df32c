"""The operator's commands: insert, jobs, queues, periodic, health and top."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

import riverrun
from factories import insert_job
from riverrun import verbs
from riverrun.cli.main import main
from riverrun.jobs.states import JobState
from riverrun.verbs.beat import beat

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, schema: str, engine: Engine) -> Run:
    """Run a command on the test's schema, and assert its exit code."""

    def run(*arguments: str, code: int = 0, stdin: str | bytes | None = None) -> Result:
        named = ("--database-url", database_url, "--schema", schema)
        result = CliRunner().invoke(main, [*arguments, *named], input=stdin)
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return run


def lines(result: Result) -> list[dict[str, Any]]:
    """Return the JSON lines that a command printed."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def commands(group: click.Command, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    """Return every command below `group`, with its path."""
    if not isinstance(group, click.Group):
        return [(path, group)]
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return [each for name, sub in found.items() if sub for each in commands(sub, *path, name)]


@pytest.mark.parametrize(("path", "command"), commands(main), ids=lambda each: str(each))
def test_every_option_is_an_environment_variable(
    path: tuple[str, ...], command: click.Command
) -> None:
    """Each option can be set in the environment, and `--help` names its variable."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.envvar, f"{' '.join(path)} {parameter.name}"
            assert parameter.show_envvar, f"{' '.join(path)} {parameter.name}"


def test_the_environment_of_a_worker(
    run: Run, engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `work` reads from the environment neither filters jobs nor chooses an insert's queue."""
    job_id = insert_job(engine, schema, queue="mail")
    monkeypatch.setenv("RIVERRUN_QUEUE", "mail:2 default:3")
    monkeypatch.setenv("RIVERRUN_TAG", "one")
    monkeypatch.setenv("RIVERRUN_JSON", "false")
    assert json.loads(run("insert", "greet", "--json").stdout)["queue"] == "default"
    assert len(lines(run("jobs", "list", "--json"))) == 2
    assert "cancelled" in run("jobs", "cancel", str(job_id)).stdout
    assert run("jobs", "get", "999", code=1).stderr.startswith("Error: no job")


def test_the_environment_chooses_no_jobs(
    run: Run, engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters of the environment narrow those of the command line, and delete nothing alone."""
    mail, other = (insert_job(engine, schema, queue=queue) for queue in ("mail", "default"))
    monkeypatch.setenv("RIVERRUN_JOBS_QUEUE", "mail")
    monkeypatch.setenv("RIVERRUN_YES", "1")
    assert [job["id"] for job in lines(run("jobs", "list", "--json"))] == [mail]
    assert "name ids, or filters" in run("jobs", "delete", code=2).stderr
    assert "deleted  1" in run("jobs", "delete", "--state", "available").stdout
    assert "cancelled" in run("jobs", "cancel", str(other)).stdout


def test_inserts_a_job(run: Run, engine: Engine, schema: str) -> None:
    """A job is inserted with its options, and its id is printed."""
    (report,) = lines(
        run(
            *("insert", "greet", '{"name": "Ada"}', "--queue", "mail", "--priority", "2"),
            *("--max-attempts", "3", "--tag", "one", "--tag", "two", "--metadata", '{"by": "me"}'),
            *("--at", "2030-01-01T12:00:00+01:00", "--json"),
        )
    )
    job = verbs.get(engine, report["id"], schema=schema)
    assert (job.kind, job.args, job.queue, job.priority) == ("greet", {"name": "Ada"}, "mail", 2)
    assert (job.max_attempts, job.tags, job.metadata) == (3, ("one", "two"), {"by": "me"})
    assert job.scheduled_at == datetime(2030, 1, 1, 11, tzinfo=UTC)
    assert "available" in run("insert", "greet").stdout


def test_inserts_lines(run: Run, engine: Engine, schema: str) -> None:
    """Each line of stdin is a job; if one is refused, none is inserted."""
    many = "\n".join(json.dumps({"number": number}) for number in range(2_500))
    assert lines(run("insert", "count", "-", "--json", stdin=many))[0]["inserted"] == 2_500
    for bad in ("[2]", "[" * 100_000, b"\xff"):
        line = bad.encode() if isinstance(bad, str) else bad
        refused = run("insert", "count", "-", stdin=b'{"number": 1}\n' + line + b"\n", code=2)
        assert "line 2: expected a JSON object" in refused.stderr
    assert sum(each.count for each in verbs.count_jobs(engine, schema=schema)) == 2_500


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("greet", "[]"), "expected a JSON object"),
        (("greet", "{"), "expected a JSON object"),
        (("greet", "{}", "--metadata", "7"), "--metadata: expected a JSON object"),
        (("greet", "{}", "--at", "noon"), "expected a time with its offset"),
        (("greet", "{}", "--at", "2030-01-01T12:00"), "expected a time with its offset"),
        (("greet", "{}", "--delay", "1", "--at", "x"), "not both"),
        (("", "{}"), "kind"),
        (("greet", '{"a": "\\u0000"}'), "NUL"),
        (("greet", "{}", "--tag", "!"), "tag is '!'"),
        (("greet", "[" * 100_000), "expected a JSON object"),
        (("greet", "{}", "--delay", "nan"), "not a number of seconds"),
        (("greet", "{}", "--delay", "inf"), "not in the range"),
        (("greet", "{}", "--at", "9999-12-31T23:59:59-14:00"), "expected a time with its offset"),
        (("greet", "{}", "--at", "0001-01-01T00:00:00+14:00"), "expected a time with its offset"),
        (("gr\udcff", "{}"), "kind is"),
    ],
)
def test_refuses_to_insert(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    """An invalid job is exit code 2, with what was expected."""
    assert expected in run("insert", *arguments, code=2).stderr


def test_lists_jobs(run: Run, engine: Engine, schema: str) -> None:
    """`jobs list` filters, orders and pages; its JSON lines end with the next cursor."""
    ids = [insert_job(engine, schema, kind="greet", queue="mail") for _ in range(3)]
    other = insert_job(engine, schema, kind="other", state="discarded", tags=["bad"])
    assert [job["id"] for job in lines(run("jobs", "list", "--json"))] == [other, *ids[::-1]]
    assert [job["id"] for job in lines(run("jobs", "list", "-s", "available", "--json"))] == ids
    page = lines(run("jobs", "list", "--queue", "mail", "--limit", "2", "--json"))
    rest = lines(run("jobs", "list", "-q", "mail", "--after", page[2]["cursor"], "--json"))
    assert [job["id"] for job in (*page[:2], *rest)] == ids[::-1]
    table = run("jobs", "list", "-s", "discarded", "--tag", "bad", "--descending").stdout
    assert str(other) in table
    assert "other" in table
    assert "no such jobs" in run("jobs", "list", "--kind", "nothing").stdout
    assert "cursor" in run("jobs", "list", "--after", "x", code=2).stderr


def test_searches_jobs(run: Run, engine: Engine, schema: str) -> None:
    """`jobs list` finds jobs by args, by client and by a text, and says how many it looked at."""
    a = insert_job(engine, schema, args={"order": {"id": 7}}, attempted_by=["one", "two"])
    b = insert_job(engine, schema, args={"order": {"id": 8}}, errors=[{"error": "Disk FULL"}])
    for arguments, expected in (
        (("--args", '{"order": {"id": 7}}'), [a]),
        (("--args", '{"order": {}}'), [b, a]),
        (("--client", "two"), [a]),
        (("--client", "one"), []),
        (("--text", "disk full"), [b]),
    ):
        found = lines(run("jobs", "list", *arguments, "--json"))
        assert [job["id"] for job in found] == expected, arguments
    assert "searched" not in run("jobs", "list", "--text", "disk").stdout
    table = run("jobs", "list", "--text", "order", "--limit", "1").stdout
    assert "searched 10,000 jobs; more: --after " in table
    assert "--args" in run("jobs", "list", "--args", "[7]", code=2).stderr
    assert "args" in run("jobs", "list", "--args", '{"x": NaN}', code=2).stderr
    assert "text" in run("jobs", "list", "--text", "", code=2).stderr


def test_final_jobs_are_listed_by_their_end(run: Run, engine: Engine, schema: str) -> None:
    """Final jobs are listed by the time they were finalized, last first; --errors shows errors."""
    early, late = (
        insert_job(
            engine,
            schema,
            state=state,
            finalized_at=datetime(2026, 1, day, tzinfo=UTC),
            errors=[
                {"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "first", "trace": ""},
                {"at": "2026-01-01T00:00:00Z", "attempt": 2, "error": "last\nline 2", "trace": ""},
            ],
        )
        for state, day in (("discarded", 1), ("cancelled", 2))
    )
    states = ("--state", "discarded", "--state", "cancelled")
    assert [job["id"] for job in lines(run("jobs", "list", *states, "--json"))] == [late, early]
    page = lines(run("jobs", "list", *states, "--limit", "1", "--json"))
    after = page[1]["cursor"]
    rest = lines(run("jobs", "list", *states, "--after", after, "--json"))
    assert [job["id"] for job in rest] == [early]
    table = run("jobs", "list", *states, "--errors").stdout
    assert "last" in table
    assert "line 2" not in table
    assert "last" not in run("jobs", "list", *states).stdout.partition("\n")[2]


def test_long_args_are_not_read_for_a_list(run: Run, engine: Engine, schema: str) -> None:
    """A table shows the length of long args in their place; JSON has all of them."""
    noise = os.urandom(5_000).hex()
    insert_job(engine, schema, args={"noise": noise})
    assert noise[:20] not in run("jobs", "list").stdout
    assert "bytes)" in run("jobs", "list").stdout
    assert noise in run("jobs", "list", "--json").stdout


HOSTILE = "report[/x]\x1b]0;owned\x07\nforged"


def test_a_narrow_terminal(
    run: Run, engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are whole, and names are wrapped, however narrow the terminal is."""
    kind = "send_reminder_to_all_customers"
    job_id = insert_job(engine, schema, kind=kind, id=1_234_567_890_123, args={"a": "b" * 100})
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    shown = run("jobs", "list").stdout
    table = [line.split("│") for line in shown.splitlines() if line.startswith("│")]
    assert table[0][1].strip() == str(job_id)
    assert "".join(cells[2].strip() for cells in table) == kind
    assert {len(line) for line in shown.splitlines() if line.startswith("│")} <= {80}


def test_values_of_a_row_cannot_paint_the_terminal(
    run: Run, engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are not markup and control characters are escaped, with rich and without."""
    job_id = insert_job(
        engine,
        schema,
        kind=HOSTILE,
        queue=HOSTILE,
        tags=["evil[link=http://x]click[/link]"],
        args={"a": HOSTILE},
        errors=[{"at": "x", "attempt": HOSTILE, "error": HOSTILE, "trace": HOSTILE}],
    )
    commands = (
        ("jobs", "list", "--errors"),
        ("jobs", "get", str(job_id)),
        ("queues", "list"),
        ("top", "--once"),
    )
    monkeypatch.setenv("COLUMNS", "1000")
    for terminal in (False, True):
        monkeypatch.setattr(
            "click.testing._NamedTextIOWrapper.isatty", lambda _, found=terminal: found
        )
        for command in commands:
            shown = run(*command).stdout
            assert "\x1b]" not in shown
            assert "\x07" not in shown
            assert "\nforged" not in shown
            assert "report[/x]" in shown


def test_shows_attempts_one_by_one(run: Run, engine: Engine, schema: str) -> None:
    """A job's failed attempts are shown in order, with line breaks and without Python reprs."""
    trace = (
        "Traceback (most recent call last):\n"
        f'  File "{riverrun.__file__}", line 1, in execute\n    worker()\n'
        '  File "/srv/shop/jobs.py", line 20, in send\n    crm.post()\n'
        '  File "/x/site-packages/requests/api.py", line 1, in post\n    return request()\n'
        '  File "/x/site-packages/requests/api.py", line 2, in request\n    raise error\n'
        "ConnectionError: no route\n"
    )
    errors = [
        {"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "OSError: first", "trace": ""},
        {
            "at": "2026-01-01T00:00:01Z",
            "attempt": 2,
            "error": "ConnectionError: no route",
            "trace": trace,
        },
    ]
    job_id = insert_job(
        engine,
        schema,
        state="retryable",
        attempt=2,
        errors=errors,
        unique_key=b"\x01" * 32,
        metadata_={"output": {"pages": 3}, "river:log": [{"attempt": 1, "log": "one\ntwo\n"}]},
    )
    shown = run("jobs", "get", str(job_id)).stdout
    assert shown.index("OSError: first") < shown.index("ConnectionError: no route")
    assert "\n    crm.post()\n" in shown.replace("\n      ", "\n    ")
    assert "... 1 frame in requests" in shown
    assert "in execute" not in shown
    assert "in execute" in run("jobs", "get", str(job_id), "--full").stdout
    assert f"{'01' * 32} while" in shown
    assert "\n  one\n  two\n" in shown
    assert '"pages": 3' in shown
    assert "frozenset" not in shown
    assert "b'" not in shown


def test_says_how_many_jobs_it_asks_about(
    run: Run, engine: Engine, database_url: str, schema: str
) -> None:
    """Before an action by filters, the question names the number of jobs."""
    for _ in range(3):
        insert_job(engine, schema, state="discarded", finalized_at=datetime(2026, 1, 1, tzinfo=UTC))
    asked = run("jobs", "delete", "--state", "discarded", code=1, stdin="n\n")
    assert "Delete 3 jobs?" in asked.stderr
    assert len(lines(run("jobs", "list", "--json"))) == 3
    alone = subprocess.run(
        [sys.executable, "-m", "riverrun", "jobs", "delete", "--state", "discarded", "--json"],
        env={**os.environ, "DATABASE_URL": database_url, "RIVERRUN_SCHEMA": schema},
        stdin=subprocess.DEVNULL,  # nobody answers
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(alone.stderr.splitlines()[-1])
    assert report["error"] == "no job was deleted: the answer was not yes; --yes asks no question"
    none = run("jobs", "delete", "--state", "available", "--json")
    assert (lines(none), none.stderr) == ([{"deleted": 0}], "")


def test_top_shows_the_whole_at_once(run: Run, engine: Engine, schema: str) -> None:
    """`top` shows queues, rates, clients, the leader and the failures."""
    now = datetime.now(UTC)
    insert_job(engine, schema, state="completed", finalized_at=now, attempted_at=now)
    insert_job(engine, schema, queue="mail", state="discarded", finalized_at=now)
    beat(engine, "worker-1", hostname="here", pid=1, queues=["mail"], schema=schema)
    (view,) = lines(run("top", "--once", "--json"))
    assert {each["name"] for each in view["queues"]} == {"mail"}
    assert [each["id"] for each in view["clients"]] == ["worker-1"]
    assert view["per_second"]["completed"] > 0
    assert [each["state"] for each in view["failures"]] == ["discarded"]
    assert "worker-1" in run("top", "--once").stdout


def test_shows_a_job(run: Run, engine: Engine, schema: str) -> None:
    """`jobs get` shows a whole job, as text and as JSON; an unknown id is exit code 1."""
    job_id = insert_job(engine, schema, unique_key=b"\x01\x02")
    (report,) = lines(run("jobs", "get", str(job_id), "--json"))
    assert (report["id"], report["args"], report["unique_key"]) == (job_id, {"name": "Ada"}, "0102")
    assert "Ada" in run("jobs", "get", str(job_id)).stdout
    assert "no job has the id 999" in run("jobs", "get", "999", code=1).stderr
    for no_id in ("0", "9" * 30, "x", ""):
        for verb in ("get", "cancel", "retry", "delete"):
            assert "ID" in run("jobs", verb, no_id, code=2).stderr


def test_cancels_and_retries(run: Run, engine: Engine, schema: str) -> None:
    """All given jobs are cancelled, even after an unknown id; the error names that."""
    first, second = (insert_job(engine, schema) for _ in range(2))
    refused = run("jobs", "cancel", str(first), "999", str(second), "--json", code=1)
    assert [job["state"] for job in lines(refused)] == ["cancelled", "cancelled"]
    assert "999" in refused.stderr
    assert lines(run("jobs", "retry", str(first), "--json"))[0]["state"] == "available"


def test_deletes(run: Run, engine: Engine, schema: str) -> None:
    """Jobs are deleted by id, or by filters after a question; a running job is not deleted."""
    running = insert_job(engine, schema, state="running")
    assert "run" in run("jobs", "delete", str(running), code=1).stderr
    with engine.begin() as connection:
        for _ in range(30):
            insert_job(connection, schema, state="discarded")
    run("jobs", "delete", code=2)
    run("jobs", "delete", "1", "--state", "discarded", code=2)
    run("jobs", "delete", "--state", "discarded", stdin="n\n", code=1)
    report = lines(run("jobs", "delete", "--state", "discarded", "--yes", "--json"))
    assert report == [{"deleted": 30}]


def test_acts_on_many(
    run: Run, engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancel and retry accept filters, work in batches, and skip jobs that they cannot change."""
    monkeypatch.setattr("riverrun.verbs.chosen.BATCH", 2)
    key = {"unique_key": b"\x01", "unique_states": [JobState.available, JobState.running]}
    with engine.begin() as connection:
        for _ in range(5):
            insert_job(connection, schema, kind="mail", state="discarded")
        insert_job(connection, schema, kind="mail", state="discarded", **key)
        insert_job(connection, schema, kind="other", state="discarded")
        insert_job(connection, schema, kind="mail", state="available", **key)
    of = ("--kind", "mail", "--state", "discarded")
    run("jobs", "retry", *of, stdin="n\n", code=1)
    assert lines(run("jobs", "retry", *of, "--yes", "--json")) == [{"retried": 5}]
    assert "other" in run("jobs", "list", "--state", "discarded").stdout
    many = ("--kind", "mail", "--state", "available", "--json")
    assert lines(run("jobs", "cancel", *many, "--yes")) == [{"cancelled": 6}]
    assert len(lines(run("jobs", "list", "--state", "cancelled", "--json"))) == 6
    assert lines(run("jobs", "cancel", "--kind", "mail", "--yes", "--json")) == [{"cancelled": 0}]
    assert lines(run("jobs", "retry", "--kind", "mail", "--yes", "--json")) == [{"retried": 6}]
    run("jobs", "retry", code=2)
    run("jobs", "cancel", "1", "--kind", "mail", code=2)


def test_errors_are_json_for_those_who_asked_for_it(run: Run) -> None:
    """With --json what went wrong is a line of JSON on stderr, and stdout holds only results."""
    for code, arguments in (
        (1, ("jobs", "get", "999")),
        (2, ("jobs", "get", "x")),
        (2, ("jobs", "list", "--limit", "0")),
        (2, ("insert", "greet", "[]")),
    ):
        result = run(*arguments, "--json", code=code)
        report = json.loads(result.stderr)
        assert (report["exit_code"], result.stdout) == (code, ""), report
        assert report["error"]


@pytest.mark.parametrize("name", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_takes_a_url_in_any_form(database_url: str, schema: str, name: str) -> None:
    """A URL without a driver, or with the application's driver, works too."""
    url = name + database_url.removeprefix("postgresql+psycopg")
    result = CliRunner().invoke(
        main, ["jobs", "list", "--schema", schema], env={"DATABASE_URL": url, "RIVERRUN_APP": None}
    )
    assert (result.exit_code, result.stdout) == (0, "no such jobs\n"), result.stderr


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://u:hid:den@h:not-a-port/db", 2),
        ("hidden", 2),
        ("mysql://u:hidden@h/db", 2),
        ("postgresql://u:hidden@127.0.0.1:1/db?hidden=1", 1),
        ("postgresql://u:hidden@127.0.0.1:99999/db", 3),
    ],
)
def test_does_not_repeat_a_bad_url(url: str, code: int) -> None:
    """The error about an invalid database URL does not show its password."""
    result = CliRunner().invoke(main, ["jobs", "list", "--database-url", url])
    assert result.exit_code == code, result.stderr
    assert "u:hid" not in result.output
    assert len(result.stderr.splitlines()) == 1
    assert isinstance(result.exception, SystemExit)


def test_a_databases_refusal_is_a_line(run: Run, engine: Engine, schema: str) -> None:
    """An error of the database is exit code 1 and one line with the reason."""
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {schema}.river_job ADD CHECK (kind <> 'greet')"))
    refused = run("insert", "greet", code=1)
    assert refused.stderr.startswith("Error: the database: new row for relation")
    assert len(refused.stderr.splitlines()) == 1
    assert "UTF-8" in run("jobs", "list", "--kind", "\udcff", code=2).stderr


def test_pauses_and_resumes_queues(run: Run, engine: Engine, schema: str) -> None:
    """Queues are listed with their jobs, paused and resumed; an unknown queue is exit code 1."""
    insert_job(engine, schema, queue="mail")
    insert_job(engine, schema, queue="mail", state="retryable")
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {schema}.river_queue (name, updated_at)"
                " VALUES ('mail', now()), ('idle', now())"
            )
        )
    worked = datetime(2026, 1, 2, tzinfo=UTC)
    done = {"state": "completed", "finalized_at": worked, "attempted_at": worked}
    insert_job(engine, schema, queue="mail", **done)
    beat(engine, "worker-1", hostname="here", pid=1, queues=["mail"], schema=schema)
    (idle, mail) = lines(run("queues", "list", "--json"))
    assert (idle["clients"], idle["last_worked_at"]) == ([], None)
    assert (mail["clients"], mail["last_worked_at"]) == (["worker-1"], worked.isoformat())
    assert (idle["name"], idle["available"], mail["available"], mail["retryable"]) == (
        *("idle", 0),
        *(1, 1),
    )
    assert lines(run("queues", "pause", "mail", "--json"))[0]["paused_at"]
    assert "ago" in run("queues", "list").stdout
    assert lines(run("queues", "resume", "*", "--json"))[0]["paused_at"] is None
    assert "no queue" in run("queues", "pause", "nowhere", code=1).stderr


def test_lists_periodic_jobs(run: Run, engine: Engine, schema: str) -> None:
    """Periodic jobs with an id are listed with their next run."""
    assert "no periodic job" in run("periodic", "list").stdout
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {schema}.riverrun_periodic (id, next_run_at)"
                " VALUES ('nightly', now() + interval '3 hours')"
            )
        )
    assert "nightly  in 3 h" in run("periodic", "list").stdout
    assert lines(run("periodic", "list", "--json"))[0]["id"] == "nightly"


def test_switches_periodic_jobs(run: Run, engine: Engine, schema: str) -> None:
    """Periodic jobs are paused, resumed and run by request; an unknown id is exit code 1."""
    with engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {schema}.riverrun_periodic (id, next_run_at) VALUES ('n', now())")
        )
    assert lines(run("periodic", "pause", "n", "--json"))[0]["paused_at"]
    assert "paused_at" in run("periodic", "list").stdout
    [resumed] = lines(run("periodic", "resume", "n", "--json"))
    assert (resumed["paused_at"], resumed["run_now_at"]) == (None, None)
    assert lines(run("periodic", "run", "n", "--json"))[0]["run_now_at"]
    for command in ("pause", "resume", "run"):
        assert "'none'" in run("periodic", command, "none", code=1).stderr


def test_what_is_no_id_is_named_as_such(run: Run) -> None:
    """A word in place of a job's id is called no id."""
    assert "'x' is not a valid job id" in run("jobs", "get", "x", code=2).stderr


def test_is_unhealthy_while_due_jobs_stay_scheduled(run: Run, engine: Engine, schema: str) -> None:
    """Scheduled and retryable jobs that were due long ago are a problem; so is no leader, then."""
    due, soon = (datetime.now(UTC) - timedelta(seconds=s) for s in (10_800, 1))
    insert_job(engine, schema, queue="mail", state="scheduled", scheduled_at=due)
    insert_job(engine, schema, queue="mail", state="retryable", scheduled_at=soon)
    insert_job(engine, schema, queue="later", state="scheduled", scheduled_at=soon)
    (report,) = lines(run("health", "--json", code=1))
    problem = "jobs of queue 'mail' are scheduled although due for 3 h, as no client leads"
    assert report["problems"] == [problem]
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {schema}.river_leader (leader_id, elected_at, expires_at)"
                " VALUES ('web-1', now(), now() + interval '1 h')"
            )
        )
    (report,) = lines(run("health", "--json", code=1))
    problem = "jobs of queue 'mail' are scheduled although due for 3 h; client web-1 leads"
    assert report["problems"] == [problem]


def test_says_whether_it_is_healthy(run: Run, engine: Engine, schema: str) -> None:
    """Jobs that wait too long and missing clients are exit code 1; an old schema is 4."""
    assert lines(run("health", "--json"))[0]["healthy"] is True
    insert_job(engine, schema, scheduled_at=datetime(2026, 1, 1, tzinfo=UTC))
    beat(engine, "worker-1", hostname="here", pid=1, queues=["default"], schema=schema)
    (report,) = lines(run("health", "--max-age", "60", "--min-clients", "2", "--json", code=1))
    assert (report["available"], report["clients"], report["leader"]) == (1, ["worker-1"], None)
    assert "longer than 60 s" in report["problems"][0]
    assert report["problems"][1] == "1 client lives; expected 2 or more"
    shown = run("health", "--max-age", "60", "--min-clients", "2", code=1).stdout.splitlines()
    assert shown[1].startswith("problems            a job of queue default waits for ")
    assert shown[2] == " " * 20 + "1 client lives; expected 2 or more"
    run("health", "--min-clients", "1")
    state = {"slots": {"default": 3}, "running": 1, "problems": ["outcomes are held"]}
    beat(engine, "worker-1", hostname="h", pid=1, queues=["default"], state=state, schema=schema)
    (report,) = lines(run("health", "--json", code=1))
    assert report["problems"] == ["client worker-1: outcomes are held"]
    shown = run("top", "--once").stdout.splitlines()
    assert "per second: 0.0 cancelled, 0.0 completed" in shown[0]
    assert any("1 of 3" in line for line in shown)
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {schema}.river_migration WHERE line = 'riverrun'"))
    assert "riverrun migrate up" in run("health", code=4).stdout


def test_says_that_the_database_is_not_there() -> None:
    """A database that cannot be reached is exit code 3, and its password is not shown."""
    url = "postgresql://u:hidden@127.0.0.1:1/db"
    for command in (["jobs", "list"], ["health"], ["queues", "list"], ["insert", "greet"]):
        result = CliRunner().invoke(main, [*command, "--database-url", url])
        assert result.exit_code == 3, result.output
        assert "hidden" not in result.output


def test_needs_something_to_act_on() -> None:
    """Without an application or a database, the error names both options."""
    result = CliRunner().invoke(
        main, ["jobs", "list"], env={"DATABASE_URL": "", "RIVERRUN_APP": ""}
    )
    assert result.exit_code == 2
    assert "--app MODULE:CLIENT or --database-url URL" in result.output


def test_acts_on_an_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, schema: str, engine: Engine
) -> None:
    """`--app` supplies database and schema, and refuses kinds that have no worker."""
    (tmp_path / "operated.py").write_text(
        "from sqlalchemy import create_engine\n"
        "import attrs\n"
        "from riverrun import Client, InsertOpts, JobArgs, RawArgs, Workers\n"
        "workers = Workers()\n"
        "@workers.register(kind='greet')\n"
        "def greet(args: RawArgs) -> None: ...\n"
        "@attrs.frozen\n"
        "class Mail(JobArgs, kind='mail', insert_opts=InsertOpts(queue='mail')):\n"
        "    to: list[str]\n"
        "@workers.register\n"
        "def mail(args: Mail) -> None: ...\n"
        f"client = Client(create_engine({database_url!r}), schema={schema!r}, workers=workers)\n"
    )
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"RIVERRUN_APP": "operated:client", "DATABASE_URL": None})
    result = runner.invoke(main, ["insert", "greet", "--app", "operated:client", "--json"])
    assert result.exit_code == 0, result.output
    refused = runner.invoke(main, ["insert", "grete", "--app", "operated:client"])
    assert (refused.exit_code, "known: 'greet'" in refused.output) == (2, True)
    wrong = runner.invoke(main, ["insert", "mail", '{"to": 7}', "--app", "operated:client"])
    assert (wrong.exit_code, "$.to" in wrong.output) == (2, True), wrong.output
    sent = runner.invoke(
        main, ["insert", "mail", '{"to": ["Ada"]}', "--json", "-A", "operated:client"]
    )
    assert json.loads(sent.stdout)["queue"] == "mail"
    assert verbs.get(engine, json.loads(result.stdout)["id"], schema=schema).kind == "greet"


def test_completes_in_the_shell(tmp_path: Path) -> None:
    """`riverrun completion` prints a script for each shell, and bash completes with it."""
    for shell in ("zsh", "fish"):
        assert "_RIVERRUN_COMPLETE" in CliRunner().invoke(main, ["completion", shell]).stdout
    commands = Path(sys.executable).parent
    asked = (
        'eval "$(riverrun completion bash)"; COMP_WORDS=(riverrun jobs ca); COMP_CWORD=2;'
        ' _riverrun_completion riverrun; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", asked],
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "cancel", done.stderr


@pytest.mark.parametrize(
    ("files", "code", "error"),
    [
        (">&- 2>&- <&-", 0, ""),
        (">/dev/full", 1, "Error: the output could not be written: No space left on device\n"),
    ],
)
def test_standard_files_that_are_closed_or_full(
    run: Run, database_url: str, schema: str, files: str, code: int, error: str
) -> None:
    """A command works without its standard files, and a full disk gives one line."""
    run("insert", "greet")
    command = f'"{sys.executable}" -m riverrun queues list {files}'
    env = {**os.environ, "DATABASE_URL": database_url, "RIVERRUN_SCHEMA": schema}
    ran = subprocess.run(
        ["sh", "-c", command], env=env, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (code, error)


def test_a_locale_that_lacks_characters(engine: Engine, database_url: str, schema: str) -> None:
    """A job is shown in a locale whose encoding lacks some of its characters; they are escaped."""
    job_id = insert_job(engine, schema, args={"price": "5 €"})
    environ = {"DATABASE_URL": database_url, "RIVERRUN_SCHEMA": schema}
    runner = CliRunner(charset="latin-1", env=environ)
    for command in (("list",), ("get", str(job_id))):
        shown = runner.invoke(main, ["jobs", *command])
        assert (shown.exit_code, shown.exception) == (0, None)
        assert "5 \\u20ac" in shown.stdout

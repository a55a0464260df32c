"""insert, jobs, queues, periodic and health: what an operator asks from the shell."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from factories import insert_job
from riverrun import verbs
from riverrun.cli.main import main
from riverrun.verbs.beat import beat

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, schema: str, engine: Engine) -> Run:
    """Run a command on the test's schema; its exit code is asserted."""

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
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
    return [each for name, sub in group.commands.items() for each in commands(sub, *path, name)]


@pytest.mark.parametrize(("path", "command"), commands(main), ids=lambda each: str(each))
def test_every_option_is_an_environment_variable(
    path: tuple[str, ...], command: click.Command
) -> None:
    """Each option can be set in the environment, and `--help` says how."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.envvar, f"{' '.join(path)} {parameter.name}"
            assert parameter.show_envvar, f"{' '.join(path)} {parameter.name}"


def test_inserts_a_job(run: Run, engine: Engine, schema: str) -> None:
    """A job is inserted with its options, and its id printed."""
    (said,) = lines(
        run(
            *("insert", "greet", '{"name": "Ada"}', "--queue", "mail", "--priority", "2"),
            *("--max-attempts", "3", "--tag", "one", "--tag", "two", "--metadata", '{"by": "me"}'),
            *("--at", "2030-01-01T12:00:00+01:00", "--json"),
        )
    )
    job = verbs.get(engine, said["id"], schema=schema)
    assert (job.kind, job.args, job.queue, job.priority) == ("greet", {"name": "Ada"}, "mail", 2)
    assert (job.max_attempts, job.tags, job.metadata) == (3, ("one", "two"), {"by": "me"})
    assert job.scheduled_at == datetime(2030, 1, 1, 11, tzinfo=UTC)
    assert "available" in run("insert", "greet").stdout


def test_inserts_lines(run: Run, engine: Engine, schema: str) -> None:
    """Each line of stdin is a job; one that is refused refuses all."""
    many = "\n".join(json.dumps({"number": number}) for number in range(2_500))
    assert lines(run("insert", "count", "-", "--json", stdin=many))[0]["inserted"] == 2_500
    refused = run("insert", "count", "-", stdin='{"number": 1}\n[2]\n', code=2)
    assert "line 2: expected a JSON object" in refused.stderr
    assert sum(each.count for each in verbs.count_jobs(engine, schema=schema)) == 2_500


@pytest.mark.parametrize(
    ("arguments", "said"),
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
    ],
)
def test_refuses_to_insert(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """What cannot be a job is exit code 2, with what was expected."""
    assert said in run("insert", *arguments, code=2).stderr


def test_lists_jobs(run: Run, engine: Engine, schema: str) -> None:
    """Filters, orders and cursors are the client's; JSON lines end with the next cursor."""
    ids = [insert_job(engine, schema, kind="greet", queue="mail") for _ in range(3)]
    other = insert_job(engine, schema, kind="other", state="discarded", tags=["bad"])
    assert [job["id"] for job in lines(run("jobs", "list", "--json"))] == [*ids, other]
    page = lines(run("jobs", "list", "--queue", "mail", "--limit", "2", "--json"))
    rest = lines(run("jobs", "list", "-q", "mail", "--after", page[2]["cursor"], "--json"))
    assert [job["id"] for job in (*page[:2], *rest)] == ids
    table = run("jobs", "list", "-s", "discarded", "--tag", "bad", "--descending").stdout
    assert str(other) in table
    assert "other" in table
    assert "no such jobs" in run("jobs", "list", "--kind", "nothing").stdout
    assert "cursor" in run("jobs", "list", "--after", "x", code=2).stderr


def test_shows_a_job(run: Run, engine: Engine, schema: str) -> None:
    """All of a job is shown, to people and to machines; one that is not there is exit code 1."""
    job_id = insert_job(engine, schema, unique_key=b"\x01\x02")
    (said,) = lines(run("jobs", "get", str(job_id), "--json"))
    assert (said["id"], said["args"], said["unique_key"]) == (job_id, {"name": "Ada"}, "0102")
    assert "Ada" in run("jobs", "get", str(job_id)).stdout
    assert "no job has the id 999" in run("jobs", "get", "999", code=1).stderr


def test_cancels_and_retries(run: Run, engine: Engine, schema: str) -> None:
    """Each of several jobs is done, also after one that is not there, which is said."""
    first, second = (insert_job(engine, schema) for _ in range(2))
    refused = run("jobs", "cancel", str(first), "999", str(second), "--json", code=1)
    assert [job["state"] for job in lines(refused)] == ["cancelled", "cancelled"]
    assert "999" in refused.stderr
    assert lines(run("jobs", "retry", str(first), "--json"))[0]["state"] == "available"


def test_deletes(run: Run, engine: Engine, schema: str) -> None:
    """Jobs are deleted by id or by filters, after a question; a running one is not."""
    running = insert_job(engine, schema, state="running")
    assert "run" in run("jobs", "delete", str(running), code=1).stderr
    with engine.begin() as connection:
        for _ in range(30):
            insert_job(connection, schema, state="discarded")
    run("jobs", "delete", code=2)
    run("jobs", "delete", "1", "--state", "discarded", code=2)
    run("jobs", "delete", "--state", "discarded", stdin="n\n", code=1)
    said = lines(run("jobs", "delete", "--state", "discarded", "--yes", "--json"))
    assert said == [{"deleted": 30}]


def test_pauses_and_resumes_queues(run: Run, engine: Engine, schema: str) -> None:
    """Queues are listed with what waits in them, paused and resumed; unknown ones are code 1."""
    insert_job(engine, schema, queue="mail")
    insert_job(engine, schema, queue="mail", state="retryable")
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {schema}.river_queue (name, updated_at)"
                " VALUES ('mail', now()), ('idle', now())"
            )
        )
    (idle, mail) = lines(run("queues", "list", "--json"))
    assert (idle["name"], idle["available"], mail["available"], mail["retryable"]) == (
        *("idle", 0),
        *(1, 1),
    )
    assert lines(run("queues", "pause", "mail", "--json"))[0]["paused_at"]
    assert "ago" in run("queues", "list").stdout
    assert lines(run("queues", "resume", "*", "--json"))[0]["paused_at"] is None
    assert "no queue" in run("queues", "pause", "nowhere", code=1).stderr


def test_lists_periodic_jobs(run: Run, engine: Engine, schema: str) -> None:
    """Those with an id are listed with their next run."""
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


def test_says_whether_it_is_healthy(run: Run, engine: Engine, schema: str) -> None:
    """Jobs that wait too long and missing clients are exit code 1, an old schema is 4."""
    assert lines(run("health", "--json"))[0]["healthy"] is True
    insert_job(engine, schema, scheduled_at=datetime(2026, 1, 1, tzinfo=UTC))
    beat(engine, "worker-1", hostname="here", pid=1, queues=["default"], schema=schema)
    (said,) = lines(run("health", "--max-age", "60", "--min-clients", "2", "--json", code=1))
    assert (said["available"], said["clients"], said["leader"]) == (1, ["worker-1"], None)
    assert "longer than 60 s" in said["problems"][0]
    assert said["problems"][1] == "1 clients live, 2 should"
    run("health", "--min-clients", "1")
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
    """Neither an application nor a database is a question of usage."""
    result = CliRunner().invoke(
        main, ["jobs", "list"], env={"DATABASE_URL": "", "RIVERRUN_APP": ""}
    )
    assert result.exit_code == 2
    assert "--app MODULE:CLIENT or --database-url URL" in result.output


def test_acts_on_an_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, schema: str, engine: Engine
) -> None:
    """`--app` gives database and schema, and its client refuses kinds that nobody works."""
    (tmp_path / "operated.py").write_text(
        "from sqlalchemy import create_engine\n"
        "from riverrun import Client, RawArgs, Workers\n"
        "workers = Workers()\n"
        "@workers.register(kind='greet')\n"
        "def greet(args: RawArgs) -> None: ...\n"
        f"client = Client(create_engine({database_url!r}), schema={schema!r}, workers=workers)\n"
    )
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"RIVERRUN_APP": "operated:client", "DATABASE_URL": None})
    result = runner.invoke(main, ["insert", "greet", "--app", "operated:client", "--json"])
    assert result.exit_code == 0, result.output
    refused = runner.invoke(main, ["insert", "grete", "--app", "operated:client"])
    assert (refused.exit_code, "known: 'greet'" in refused.output) == (2, True)
    assert verbs.get(engine, json.loads(result.stdout)["id"], schema=schema).kind == "greet"


def test_completes_in_the_shell() -> None:
    """The shell's completion script is click's own."""
    result = CliRunner().invoke(
        main, env={"_RIVERRUN_COMPLETE": "bash_source"}, prog_name="riverrun"
    )
    assert "_riverrun_completion" in result.output

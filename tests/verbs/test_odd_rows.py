"""Rows that no client writes do not keep riverrun from reading them and the others."""

import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from factories import insert_job
from riverrun import verbs
from riverrun.cli.main import main
from riverrun.client.client import Client
from riverrun.config import QueueConfig
from riverrun.db.transactions import joined
from riverrun.errors import UndecodableArgs
from riverrun.execution.context import JobContext
from riverrun.execution.workers import Workers
from riverrun.jobs.args import RawArgs, decode
from riverrun.jobs.listing import JobListParams, JobOrder
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.outcome import completed
from riverrun.policies.backoff import Constant
from riverrun.testing import drain, require_inserted, rolled_back
from riverrun.verbs.claim import claim_job
from riverrun.verbs.clean import clean
from riverrun.verbs.complete import record
from riverrun.verbs.give_back import give_back
from riverrun.verbs.queues import read_queues
from riverrun.verbs.rescue import rescue
from riverrun.verbs.schedule import schedule

DIGITS = "9" * 5_000
DEEP = "[" * 3_000 + "]" * 3_000

ODD = {
    "a number of 5,000 digits in args": f"args = '{{\"n\": {DIGITS}}}'",
    "args nested 3,000 deep": f"args = '{DEEP}'",
    "args that are a list": "args = '[1]'",
    "args that are a number": "args = '1e-5'",
    "args that are null": "args = 'null'",
    "an escaped NUL in args": r"""args = '{"name": "\\u0000"}'""",
    "metadata that is a list": "metadata = '[1]'",
    "metadata that is a number": "metadata = '7'",
    "metadata that is null": "metadata = 'null'",
    "metadata nested 3,000 deep": f"""metadata = '{{"deep": {DEEP}}}'""",
    "metadata of 5,000 digits": f"""metadata = '{{"snoozes": {DIGITS}, "n": 1}}'""",
    "counters that are none": """metadata = '{"snoozes": [], "river:rescue_count": "x"}'""",
    "steps that are none": """metadata = '{"river:resumable_step": 7}'""",
    "errors of 5,000 digits": f"errors = ARRAY['{{\"attempt\": {DIGITS}}}'::jsonb]",
    "errors that are no objects": "errors = ARRAY['1', '\"x\"', 'null', NULL, '[]']::jsonb[]",
    "errors in two dimensions": "errors = ARRAY[ARRAY['{}'], ARRAY['{}']]::jsonb[]",
    "tags in two dimensions": "tags = '{{a,b},{c,d}}'",
    "a tag that is null": "tags = ARRAY[NULL]::text[]",
    "tags that no client takes": "tags = ARRAY['', 'a b', repeat('x', 255)]",
    "clients in two dimensions": "attempted_by = '{{a,b},{c,d}}'",
    "created before Christ": "created_at = '4000-01-01 BC'",
    "created at -infinity": "created_at = '-infinity'",
    "created at infinity": "created_at = 'infinity'",
    "scheduled at -infinity": "scheduled_at = '-infinity'",
    "attempted in the year 20000": "attempted_at = '20000-01-01'",
    "attempted at no time": "attempted_at = NULL, attempted_by = NULL",
    "the last attempt there is": "attempt = 32767, max_attempts = 32767",
    "a kind that no client takes": "kind = E'a\\nb \u2028'",
}
"""What to SET in a row, by what is odd about it."""


def change(engine: Engine, schema: str, changes: str, job_ids: Sequence[int]) -> None:
    """Change rows by hand."""
    with engine.begin() as connection:
        # By the driver: a colon in the JSON is no parameter.
        statement = f"UPDATE {schema}.river_job SET {changes} WHERE id = ANY(%s)"
        connection.connection.cursor().execute(statement, [list(job_ids)])


@pytest.fixture
def odd(engine: Engine, schema: str) -> dict[str, int]:
    """The ids of odd jobs, one of each, and of one that is not."""
    jobs = {name: insert_job(engine, schema) for name in ("nothing", *ODD)}
    for name, changes in ODD.items():
        change(engine, schema, changes, [jobs[name]])
    return jobs


def test_attempts_at_odd_rows(engine: Engine, schema: str, odd: dict[str, int]) -> None:
    """Odd rows are claimed with the others, given back, snoozed, failed and completed."""
    jobs = verbs.claim(engine, limit=99, client_id="me", schema=schema)
    assert sorted(job.id for job in jobs) == sorted(odd.values())
    assert set(give_back(engine, jobs, client_id="me", schema=schema).values()) == {
        JobState.available
    }
    for name, job_id in odd.items():
        job = claim_job(engine, job_id, client_id="me", schema=schema)
        assert verbs.snooze(engine, job, 0, schema=schema) is JobState.available, name
        job = claim_job(engine, job_id, client_id="me", schema=schema)
        change(engine, schema, "max_attempts = 32767", [job_id])
        job = attrs.evolve(job, max_attempts=32_768)
        state = verbs.fail(engine, job, ValueError(name), backoff=Constant(delay=0), schema=schema)
        assert state is JobState.available, name
        job = claim_job(engine, job_id, client_id="me", schema=schema)
        assert job.errors[-1]["error"] == f"ValueError: {name}"
        state = verbs.complete(engine, job, metadata={"done": 1}, schema=schema)
        assert state is JobState.completed, name


def test_operators_read_odd_rows(engine: Engine, schema: str, odd: dict[str, int]) -> None:
    """Odd rows are read, listed page by page, updated, cancelled and retried."""
    client = Client(engine, schema=schema)
    for order in JobOrder.id, JobOrder.scheduled_at, JobOrder.time:
        for descending in (False, True):
            listed: list[int] = []
            page = JobListParams(limit=2, order_by=order, descending=descending)
            while (found := client.list_jobs(engine, page)).jobs:
                listed += [job.id for job in found.jobs]
                page = attrs.evolve(page, after=found.cursor)
            assert sorted(listed) == sorted(odd.values())
    for name, job_id in odd.items():
        assert client.get(engine, job_id).id == job_id, name
        assert client.update(engine, job_id, metadata={"a": 1}).id == job_id, name
        assert client.cancel(engine, job_id).state is JobState.cancelled, name
        assert client.retry(engine, job_id).state is JobState.available, name


@pytest.mark.parametrize("odd_time", ["infinity", "-infinity", "20000-01-01"])
def test_odd_times_are_counted(engine: Engine, schema: str, odd_time: str) -> None:
    """A job that is due at no time on a calendar leaves the counts, and metrics, as they are."""
    job_id = insert_job(engine, schema, state="scheduled")
    change(engine, schema, f"scheduled_at = '{odd_time}'", [job_id])
    [count] = verbs.count_jobs(engine, schema=schema)
    assert (count.state, count.count) == (JobState.scheduled, 1)
    assert (count.age_s > 0) == (odd_time == "-infinity")


def test_the_shell_shows_odd_rows(engine: Engine, schema: str, odd: dict[str, int]) -> None:
    """The shell lists odd rows and shows each, to people and, as JSON, to machines."""
    url = engine.url.render_as_string(hide_password=False)
    for command in (["list"], *(["get", str(job_id)] for job_id in odd.values())):
        for form in ([], ["--json"]):
            arguments = ["jobs", *command, "--database-url", url, "--schema", schema, *form]
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, (command, result.output, result.exception)
            if form:
                for line in result.output.splitlines():
                    json.loads(line, parse_constant=pytest.fail)


def test_maintenance_reads_odd_rows(engine: Engine, schema: str, odd: dict[str, int]) -> None:
    """Odd rows are scheduled, rescued and cleaned."""
    jobs = list(odd.values())
    change(engine, schema, "state = 'retryable'", jobs)
    assert schedule(engine, schema=schema).available == len(jobs)
    change(engine, schema, "state = 'running', attempt = 1, attempted_at = '2020-01-01'", jobs)
    late = [odd["attempted at no time"]]
    change(engine, schema, "attempted_at = NULL, created_at = '2020-01-01'", late)
    policy: Any = {"stuck_s": 1, "backoff": lambda _: Constant(delay=9)}
    rescued = rescue(engine, dead_s=1, schema=schema, **policy)
    assert sorted(rescued.states) == sorted(jobs)
    change(engine, schema, "state = 'completed', finalized_at = '2020-01-01'", jobs)
    kept: Any = {"cancelled_s": 1, "completed_s": 1, "discarded_s": 1}
    assert clean(engine, schema=schema, **kept) == len(jobs)


def test_workers_get_odd_args(engine: Engine, schema: str, odd: dict[str, int]) -> None:
    """Args are read if Python can hold them; args that are no object are undecodable."""
    args = {name: verbs.get(engine, job_id, schema=schema).args for name, job_id in odd.items()}
    assert args["an escaped NUL in args"] == {"name": "\\u0000"}
    assert args["a number of 5,000 digits in args"] == {"n": float("inf")}
    for name in ("args nested 3,000 deep", "args that are a list", "args that are null"):
        with pytest.raises(UndecodableArgs):
            decode("greet", args[name], RawArgs)


def test_states_of_a_later_river(engine: Engine, empty_database: Engine) -> None:
    """A job in a state that only a later release knows is read, and no other suffers by it."""
    migrate(empty_database)
    job_id, other = insert_job(empty_database), insert_job(empty_database)
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        connection.execute(text(f"UPDATE river_job SET state = 'frozen' WHERE id = {job_id}"))
    client = Client(empty_database)
    frozen, plain = client.list_jobs(empty_database).jobs
    assert (frozen.state, plain.state) == ("frozen", JobState.available)
    assert frozen.state not in set(JobState)
    assert not frozen.state.is_final
    assert client.get(empty_database, job_id).state == "frozen"
    [claimed] = verbs.claim(empty_database, limit=9, client_id="me")
    assert claimed.id == other
    with joined(empty_database) as transaction:
        # Staged metadata is kept even if another client has changed the job meanwhile.
        lost = completed(job_id, claimed.attempt, {"a": 1})
        states = record(transaction, [lost], merge_anyway=True)
    assert states == {job_id: "frozen"}
    assert client.get(empty_database, job_id).metadata == {"a": 1}
    assert client.cancel(empty_database, job_id).state is JobState.cancelled


def test_queues_paused_for_ever(engine: Engine, schema: str) -> None:
    """A queue paused at 'infinity', and with odd metadata, is read as paused."""
    with engine.begin() as connection:
        statement = (
            f"INSERT INTO {schema}.river_queue (name, metadata, paused_at, updated_at) VALUES"
            f" ('odd', '{{\"n\": {DIGITS}}}', 'infinity', now()), ('list', '[1]', NULL, now())"
        )
        connection.connection.cursor().execute(statement)
    of_list, of_odd = sorted(
        read_queues(engine, ["odd", "list"], schema=schema), key=lambda row: row.name
    )
    assert of_odd.paused_at is not None
    assert of_odd.metadata == {"n": float("inf")}
    assert (of_list.paused_at, of_list.metadata) == (None, {})


def test_tests_see_odd_rows(engine: Engine, schema: str, odd: dict[str, int]) -> None:
    """A user's test finds its job among odd rows, lists them, and drains their queue."""
    workers = Workers()
    seen: list[int] = []

    @workers.register(kind="greet")
    def greet(args: RawArgs, ctx: JobContext) -> None:
        seen.append(ctx.job.id)

    client = Client(engine, workers=workers, schema=schema, queues={"default": QueueConfig()})
    mine = RawArgs(kind="greet", encoded={"mine": True})
    job = client.insert(engine, mine).job
    assert require_inserted(engine, mine, schema=schema).id == job.id
    with pytest.raises(AssertionError, match="inf"):
        require_inserted(engine, RawArgs(kind="greet", encoded={"lost": True}), schema=schema)
    with rolled_back(engine) as session:
        # Only jobs that the test's own transaction has written are drained.
        session.execute(text(f"UPDATE {schema}.river_job SET priority = priority"))
        drain(session, client, reraise=False)
    refused = {name for name in odd if name.startswith(("args ", "a kind"))}
    assert sorted(seen) == sorted({job.id, *odd.values()} - {odd[name] for name in refused})

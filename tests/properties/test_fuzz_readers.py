"""Readers of outside input return a value or raise one of riverrun's errors."""

import base64
import contextlib
import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from factories import job_row
from riverrun.cli.main import main
from riverrun.client.client import Client
from riverrun.clock import Clock
from riverrun.db.urls import psycopg_url
from riverrun.errors import JobSnooze, RiverrunError, UndecodableArgs
from riverrun.execution.attempt_state import ContextParts
from riverrun.execution.context import JobContext
from riverrun.execution.steps import CURSOR_KEY, STEP_KEY, Steps
from riverrun.ext.settings import _READERS, client_options
from riverrun.jobs.args import decode
from riverrun.jobs.listing import JobListParams
from riverrun.outcome import decide
from riverrun.policies.backoff import Constant
from riverrun.policies.schedule import Cron
from riverrun.queries import read as queries
from riverrun.verbs.complete import record
from riverrun.verbs.read import errors_of, json_object, json_value
from riverrun.verbs.rescue import _outcome
from riverrun.wire.topics import parse

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NOWHERE = "postgresql+psycopg://127.0.0.1:1/none"
NINES = "9" * 4_300
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(10**30), int(NINES), 2**63, 1e308, -0.0])
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "1", "-7", "+7", "\u0663", NINES, "9" * 5_000, "2026-11-24T00:00:00Z"])
)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def _short(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


ROW_TEXT = JSON.filter(_short).map(json.dumps) | st.sampled_from(
    ["9" * 5_000, '{"n": -' + "9" * 5_000 + "}", "[" * 9_000 + "]" * 9_000]
)
METADATA = st.dictionaries(
    st.sampled_from(
        ["snoozes", "river:rescue_count", "cancel_attempted_at", STEP_KEY, CURSOR_KEY, "other"]
    ),
    JSON,
)


@given(st.text() | ROW_TEXT)
@example('{"queue": ["a"], "action": {}, "job_id": 1e999}')
@example("[" * 100_000)
def test_notifications(payload: str) -> None:
    """A payload is an object, or nothing."""
    value = parse(payload)
    assert value is None or isinstance(value, dict)


@given(ROW_TEXT, st.lists(st.none() | ROW_TEXT | st.lists(ROW_TEXT, max_size=2), max_size=3))
def test_rows(text: str, errors: list[Any]) -> None:
    """JSON of a row is some value, its metadata and each of its errors an object."""
    json_value(text)
    assert isinstance(json_object(text), dict)
    assert all(isinstance(error, dict) for error in errors_of(errors))


class _Statements:
    """A transaction that takes statements and their parameters, and finds no row."""

    def rows(self, _statement: object, params: dict[str, Any]) -> list[Any]:
        """Take what would go to the database as JSON."""
        json.loads(params["outcomes"], parse_int=str)
        return []


@given(METADATA)
@example({"snoozes": "9" * 5_000})
@example({"snoozes": int(NINES)})
@example({"river:rescue_count": int(NINES)})
def test_metadata(metadata: dict[str, Any]) -> None:
    """Whatever metadata holds, its job can be snoozed, rescued, and its steps taken up."""
    job = job_row(metadata=metadata)
    snoozed = decide(job, JobSnooze(1), now=NOW, backoff=Constant(delay=1))
    rescued = _outcome(job, NOW, Constant(delay=1))
    record(_Statements(), [snoozed], merge_anyway=True)  # type: ignore[arg-type]
    record(_Statements(), [rescued], merge_anyway=True)  # type: ignore[arg-type]
    with contextlib.suppress(RiverrunError):
        Steps(metadata)
    ctx = JobContext(job, ContextParts(clock=Clock(), engine=None), 0.0, None)
    with contextlib.suppress(RiverrunError):
        ctx.step("one", lambda: None)
    with contextlib.suppress(RiverrunError):
        ctx.cursor_step("two", lambda cursor: ctx.set_cursor(cursor))
    ctx.stage_progress()


def _cursor(fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


CURSORS = st.text() | st.builds(
    lambda **fields: _cursor(fields),
    id=SCALAR.filter(_short),
    time=SCALAR.filter(_short) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    sort_field=st.sampled_from(["id", "scheduled_at", "time", 7, None]),
)


@given(CURSORS, st.sampled_from(["id", "scheduled_at", "time"]))
@example(_cursor([1]), "id")
@example(_cursor({"id": 1, "time": "0001-01-01T00:00:00+23:59", "sort_field": "time"}), "time")
@example(_cursor({"id": 1, "time": "9999-12-31T23:59:59-23:59", "sort_field": "time"}), "time")
def test_cursors(after: str, order_by: str) -> None:
    """A cursor is read, or refused as an option; what is read makes a statement."""
    with contextlib.suppress(RiverrunError):
        queries.list_jobs(JobListParams(after=after, order_by=order_by))  # type: ignore[arg-type]


FIELD = st.text("0123456789*/,-?LW#", max_size=6) | st.sampled_from(
    ["*", "*/5", "1-5", "MON-FRI", "jan", "29", "30", "31", "2", "0", "7", "5-70000000/1"]
)
CRONS = st.text(max_size=20) | st.lists(FIELD, min_size=1, max_size=7).map(" ".join)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Nowhere/Land", "", "../x"])


@given(CRONS, ZONES, st.datetimes(datetime(1970, 1, 1), datetime(9990, 1, 1)))
@example("0 0 30 2 *", "UTC", datetime(2026, 1, 1))
@example("@every 1e400s", "UTC", datetime(2026, 1, 1))
@example("@every 9999999999999999h", "UTC", datetime(2026, 1, 1))
@example("TZ=../../etc/passwd * * * * *", "UTC", datetime(2026, 1, 1))
@example("CRON_TZ= * * * * *", "UTC", datetime(2026, 1, 1))
@example("0 0 29 2 *", "UTC", datetime(9989, 1, 1))
def test_crons(expression: str, zone: str, after: datetime) -> None:
    """A cron expression is refused, or gives a later time, or says that there is none."""
    moment = after.replace(tzinfo=UTC)
    with contextlib.suppress(RiverrunError):
        assert Cron(expression, tz=zone)(moment) > moment


@attrs.frozen
class Inner:
    """Args within args."""

    when: datetime
    wait: float = 0.0


@attrs.frozen
class Given:
    """Args of many types."""

    number: int
    maybe: int | None
    inner: Inner
    many: list[Inner]
    named: dict[str, int]
    pair: tuple[int, str]
    either: Inner | str | None = None


@dataclasses.dataclass
class Plain:
    """Args as a dataclass."""

    number: int
    day: datetime | None = None


TYPES: list[type[Any]] = [Given, Inner, Plain]


@given(
    st.sampled_from(TYPES),
    JSON
    | st.fixed_dictionaries(
        {"number": JSON, "maybe": JSON, "inner": JSON, "many": JSON, "named": JSON, "pair": JSON},
        optional={"either": JSON, "day": JSON, "when": JSON, "wait": JSON},
    ),
)
def test_args(args_type: type[Any], encoded: Any) -> None:
    """Args are decoded to their type, or refused as undecodable with a printable text."""
    decoded: object = None
    try:
        decoded = decode("kind", encoded, args_type)
    except UndecodableArgs as error:
        decoded = str(error)
    assert isinstance(decoded, str | args_type)


NAMES = st.sampled_from([*_READERS, "none"])
SETTING = (
    st.text(max_size=12)
    | st.sampled_from(["nan", "inf", "-1", "1e999", "0", "none", "true", "a:1 b", ":", "a:9999999"])
    | st.sampled_from(["9" * 5_000, "default:-1", "default:\u0661"])
    | JSON
)


@given(st.dictionaries(NAMES, SETTING, max_size=2))
@example({"queues": {7: 1}})
@example({"queues": {"default": {"max_workers": []}}})
def test_settings(values: dict[str, Any]) -> None:
    """Settings make a client, or are refused with their name."""
    with contextlib.suppress(RiverrunError):
        Client(create_engine(NOWHERE), **client_options(values, "riverrun."))


@given(
    st.text(max_size=30)
    | st.builds(
        "{}://{}@{}:{}/{}".format,
        st.sampled_from(["postgres", "postgresql", "postgresql+asyncpg", "mysql", ""]),
        st.text("ab:@/%é", max_size=8),
        st.text("ab[]:/.", max_size=8),
        st.text("0123456789x", max_size=6),
        st.text("ab?=&%/", max_size=8),
    )
)
def test_urls(url: str) -> None:
    """A database URL is read, or refused."""
    with contextlib.suppress(RiverrunError):
        psycopg_url(url)


WORD = st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.sampled_from(
    ["-1", "0", "9" * 30, "--", "-x", "--json", "--limit", "{}", "[]", "a:b", "\x00", "1e9", "nan"]
)
OPTIONS = ["--limit", "--after", "--order-by", "--tag", "--state", "--kind", "--queue", "--schema"]
COMMANDS: list[Callable[[str, str, str], list[str]]] = [
    lambda one, two, three: ["jobs", "list", one, two, three],
    lambda one, two, _: ["jobs", "get", one, two],
    lambda one, two, three: ["jobs", "cancel", "--yes", one, two, three],
    lambda one, two, three: ["insert", one, two, three],
    lambda one, two, _: ["queues", "pause", one, two],
    lambda one, two, three: ["migrate", one, two, three],
    lambda one, two, three: ["work", "--app", one, two, three],
]


@settings(max_examples=60)
@pytest.mark.parametrize("command", COMMANDS)
@given(WORD | st.sampled_from(OPTIONS), WORD, WORD)
def test_commands(
    command: Callable[[str, str, str], list[str]], one: str, two: str, three: str
) -> None:
    """Any command line ends with an exit code and a line, not with a traceback."""
    arguments = [*command(one, two, three)]
    environment = {"RIVERRUN_DATABASE_URL": NOWHERE, "DATABASE_URL": NOWHERE}
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert 0 <= result.exit_code <= 130

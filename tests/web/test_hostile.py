"""Rows and addresses that nobody means well with: they are text, and never an error."""

import json
import random
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from sqlalchemy import Engine, text

from factories import insert_job
from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, PeriodicRun, Queue
from riverrun.verbs.actions import record_action
from web.site import Site
from web.test_pages import fill, put, soon

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
ESCAPES = "\x1b[31mred\x07\u202eexe.txt\u2028\r\nSet-Cookie: a=b"
NAMES = [MARKUP, ESCAPES, "a" * 100, "..", "a/../b", "%00%2e%2e%2f", "\U0001f600 é", " ", "="]

DIGITS = "9" * 5_000
DEEP = "[" * 3_000 + "]" * 3_000

ODD = {
    "a number of 5,000 digits": f"args = '{{\"n\": {DIGITS}}}'",
    "deep args": f"args = '{DEEP}'",
    "args that are a list": "args = '[1]'",
    "args that are null": "args = 'null'",
    "markup in args": f"args = '{json.dumps({MARKUP: MARKUP}).replace(chr(39), chr(39) * 2)}'",
    "half a pair": r"""args = '{"a": "\\ud800"}'""",
    "metadata that is a list": "metadata = '[1]'",
    "deep metadata": f"""metadata = '{{"deep": {DEEP}}}'""",
    "counters that are none": """metadata = '{"snoozes": [], "river:rescue_count": "x"}'""",
    "a step that is none": """metadata = '{"river:resumable_step": 7}'""",
    "cursors that are none": """metadata = '{"river:resumable_cursor": [1]}'""",
    "logs that are none": """metadata = '{"river:log": [1, {"attempt": "x", "log": 5}, null]}'""",
    "a cancel that is none": """metadata = '{"cancel_attempted_at": {"a": 1}, "traceparent": 7}'""",
    "errors that are no objects": "errors = ARRAY['1', '\"x\"', 'null', NULL, '[]']::jsonb[]",
    "errors of 5,000 digits": f"errors = ARRAY['{{\"attempt\": {DIGITS}}}'::jsonb]",
    "errors in two dimensions": "errors = ARRAY[ARRAY['{}'], ARRAY['{}']]::jsonb[]",
    "an error long ago": """errors = ARRAY['{"at": "0001-01-01T00:00:00+14:00"}'::jsonb]""",
    "tags in two dimensions": "tags = '{{a,b},{c,d}}'",
    "a tag that is null": "tags = ARRAY[NULL]::text[]",
    "clients in two dimensions": "attempted_by = '{{a,b},{c,d}}'",
    "a client that is null": "attempted_by = ARRAY[NULL]::text[], attempt = 1",
    "created before Christ": "created_at = '4000-01-01 BC'",
    "created at infinity": "created_at = 'infinity'",
    "scheduled at -infinity": "scheduled_at = '-infinity'",
    "attempted in the year 20000": "attempted_at = '20000-01-01', attempt = 3",
    "the last attempt there is": "attempt = 32767, max_attempts = 32767",
    "the largest id": f"id = {2**63 - 1}",
    "no id to speak of": "id = 0",
    "a unique key of no state": "unique_key = '\\x00', unique_states = B'00000000'",
}
"""What to SET in a row, by what is odd about it."""


def change(engine: Engine, schema: str, changes: str, job_id: int) -> int:
    """Change a row by hand, and return its id."""
    with engine.begin() as connection:
        # By the driver: a colon in the JSON is no parameter.
        statement = f"UPDATE {schema}.river_job SET {changes} WHERE id = %s RETURNING id"
        cursor = connection.connection.cursor()
        cursor.execute(statement, [job_id])
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def check(answer: Any) -> None:
    """Check that a page has no markup but its own."""
    assert answer.status == 200, answer.page.text
    page = answer.page
    assert [each.get("src") for each in page.all("script")] == [page.all("script")[0]["src"]]
    assert not page.all("img")
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def insert_named(engine: Engine, schema: str, name: str) -> int:
    """Insert one of each thing whose name others choose, all named `name`."""
    put(engine, schema, Queue, name=name)
    put(engine, schema, PeriodicRun, id=name, next_run_at=soon(60), schedule=name, zone=name)
    metadata = {"problems": [name], "version": name, "executors": [name], "slots": {name: "x"}}
    values = {"id": name, "hostname": name, "pid": 1, "queues": [name], "metadata_": metadata}
    put(engine, schema, ClientRecord, **values)
    chosen_by = {name: name}
    record_action(engine, user="eve", action=name, count=1, filter=chosen_by, schema=schema)
    return insert_job(
        engine,
        schema,
        kind=name,
        queue=name,
        tags=[name],
        state=JobState.discarded,
        finalized_at=soon(-1),
        attempt=1,
        attempted_at=soon(-2),
        attempted_by=[name],
        errors=[{"at": name, "attempt": 1, "error": name, "trace": f"Traceback\n{name}"}],
        metadata_={
            "output": name,
            "river:log": [{"attempt": 1, "log": name}],
            "river:periodic_job_id": name,
            "river:resumable_step": name,
            "cancel_attempted_at": name,
            name: name,
        },
    )


def test_names(engine: Engine, schema: str) -> None:
    """Whatever a kind, a queue, a client, a tag or an error is named, it is shown, and linked."""
    jobs = [insert_named(engine, schema, name) for name in NAMES]
    site = Site(engine, schema=schema, title=MARKUP)
    addresses = ["/overview", "/jobs", "/queues", "/clients", "/periodic", "/kinds", "/failures"]
    seen = set()
    for address in [*addresses, "/actions", *(f"/jobs/{job_id}" for job_id in jobs)]:
        answer = site.get(address)
        check(answer)
        assert site.get(f"{address}.json").status == 200
        seen.update(answer.page.links())
    found = [link for link in seen if re.match(r"/ops/jobs/(queues|clients|kinds|periodic)/", link)]
    assert len(found) == 4 * len(NAMES)
    for link in found:
        check(site.get(link))


def test_odd_rows(engine: Engine, schema: str) -> None:
    """Rows that no client writes are shown in lists and alone, in every format."""
    jobs = {}
    for name, changes in ODD.items():
        jobs[name] = change(engine, schema, changes, insert_job(engine, schema))
    site = Site(engine, schema=schema)
    for address in ("/jobs", "/jobs.json", "/jobs.csv", "/", "/queues", "/kinds", "/failures"):
        assert site.get(address).status == 200, address
    for order in ("newest", "oldest", "time"):
        assert site.get(f"/jobs?order={order}&state=available").status == 200
    for name, job_id in jobs.items():
        for suffix in ("", ".json", "/args", "/output", "/metadata", "/log"):
            assert site.get(f"/jobs/{job_id}{suffix}").status == 200, (name, suffix)
        check(site.get(f"/jobs/{job_id}"))


def test_a_state_that_only_a_later_river_knows(engine: Engine, schema: str) -> None:
    """A state that riverrun does not know is shown by its name."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"""ALTER TYPE {schema}.river_job_state ADD VALUE 'on <hold>'"""))
    job_id = change(engine, schema, "state = 'on <hold>'", insert_job(engine, schema))
    site = Site(engine, schema=schema)
    for address in (
        "/jobs",
        f"/jobs/{job_id}",
        "/jobs.csv",
        f"/jobs/{job_id}.json",
        "/queues",
        "/",
    ):
        answer = site.get(address)
        assert answer.status == 200
        if "jobs" in address:
            assert "on <hold>" in (answer.text if "." in address else answer.page.text)


def test_large_values(engine: Engine, schema: str) -> None:
    """Megabytes of log, trace and output are cut with a mark, and can be downloaded whole."""
    line = "0123456789abcde\n"
    job_id = insert_job(
        engine,
        schema,
        state=JobState.discarded,
        attempt=1,
        attempted_at=soon(-2),
        errors=[{"at": "x", "attempt": 1, "error": "E" * 500_000, "trace": line * 50_000}],
        metadata_={
            "output": {"big": "x" * 3_000_000},
            "river:log": [{"attempt": 1, "log": line * 500_000}],
        },
        args={"a": "y" * 300_000},
    )
    site = Site(engine, schema=schema)
    answer = site.get(f"/jobs/{job_id}")
    check(answer)
    assert len(answer.body) < 200_000
    assert "Cut here. There are 8,000,000 characters." in answer.page.text
    data = site.get(f"/jobs/{job_id}.json").json["data"]
    assert (data["output"]["value"], data["output"]["cut"]) == (None, True)
    assert len(site.get(f"/jobs/{job_id}/log").body) == 8_000_000
    assert len(site.get(f"/jobs/{job_id}/output").json["big"]) == 3_000_000
    assert len(site.get("/jobs").body) < 100_000


FIELDS = [
    *("state", "kind", "queue", "tag", "priority", "arg", "meta", "client", "since", "until"),
    *("q", "id", "order", "after", "limit", "back", "action", "newest", "done", "count", "left"),
    *("reached", "failure", "switch", "name", "attempt", "span", "by", "at", "args"),
]
VALUES = [
    "",
    "1",
    "-1",
    "0",
    "x",
    "a:b",
    "a.b.c:{}",
    "a:[",
    f"a:{DIGITS}",
    f"a:{DEEP}",
    "available",
    "completed",
    "discarded",
    "\x00",
    "\ud800".encode(errors="surrogatepass").decode(errors="replace"),
    MARKUP,
    ESCAPES,
    DIGITS[:400],
    str(2**63 - 1),
    str(2**63),
    "1e400",
    "NaN",
    "2026-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "99999999999d",
    "retry",
    "delete",
    "pause_queue",
    "//evil",
    "/jobs",
    "1h",
    "15m",
    "queue",
    "*",
    "eyJpZCI6MX0=",
    "\u0661\u0662",
    "²",
]


@pytest.mark.parametrize("seed", range(2))
def test_any_query(engine: Engine, schema: str, seed: int) -> None:
    """Whatever is in an address or a form, the answer is a page, and never an error of ours."""
    rng = random.Random(seed)
    addresses = [*fill(engine, schema).values(), "/confirm", "/progress", "/switch"]
    site = Site(engine, schema=schema)
    for _ in range(60):
        address = rng.choice(addresses)
        pairs = [(rng.choice(FIELDS), rng.choice(VALUES)) for _ in range(rng.randint(1, 4))]
        suffix = rng.choice(["", "", ".json", ".csv", "/", ".html"])
        query = urlencode(pairs)
        answer = site.get(f"{'' if address == '/' else address}{suffix}?{query}")
        assert answer.status in {200, 400, 403, 404}, (address, pairs, answer.text[-400:])
        form = site.post(rng.choice(["/act", "/switch", "/preferences"]), pairs)
        assert form.status in {303, 400, 403, 404}, (pairs, form.text[-400:])


@pytest.mark.parametrize(
    "query",
    ["%", "%zz", "%ff%fe", "=&=&&;;", "a" * 50_000, "&".join(["a=1"] * 2_000), "state=%ED%A0%80"],
)
def test_queries_that_are_none(engine: Engine, schema: str, query: str) -> None:
    """A query that cannot be read is answered with a page."""
    site = Site(engine, schema=schema)
    for address in ("/jobs", "/", "/confirm"):
        answer = site.get(address, QUERY_STRING=query)
        assert answer.status in {200, 400}


@pytest.mark.parametrize(
    "path", ["/jobs/%ff", "/queues/%ff%00", "/kinds/" + quote("\x00"), "/%2e%2e/x", "x", "/jobs//"]
)
def test_paths_that_are_none(engine: Engine, schema: str, path: str) -> None:
    """A path of any bytes is answered with a page."""
    assert Site(engine, schema=schema).get(path).status in {200, 400, 404}


def test_environs_that_lack_things(engine: Engine, schema: str) -> None:
    """A server may leave out what WSGI lets it leave out."""
    site = Site(engine, "", schema=schema)
    answer = site.get("/jobs", HTTP_COOKIE="a=\x00;;;=", HTTP_HOST="", PATH_INFO="")
    assert answer.status == 200
    for length in ("-1", "x", "1e3", "9" * 30, "\u0662"):
        assert site.post("/act", {"action": "retry"}, CONTENT_LENGTH=length).status == 400

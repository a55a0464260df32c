"""The pages of jobs: lists with their filters, and a job with all its parts."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from factories import T0, insert_job
from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord
from riverrun.web import Link, User
from web.site import Site, statements

SECRET = "4111 1111 1111 1111"


def ids(site: Site, query: str) -> list[int]:
    """Return the ids of the jobs on a page, as its JSON has them."""
    answer = site.get(f"/jobs.json?{query}")
    assert answer.status == 200, answer.text
    return [job["id"] for job in answer.json["data"]["jobs"]]


def test_filters(engine: Engine, schema: str) -> None:
    """Each filter of the address selects the jobs that it names."""
    old = insert_job(engine, schema, created_at=T0, args={"n": {"a": 7}, "s": "x y"}, tags=["big"])
    mail = insert_job(engine, schema, kind="mail", queue="post", priority=3, metadata_={"t": "eu"})
    done = insert_job(engine, schema, state=JobState.completed, attempted_by=["a", "me"], attempt=1)
    site = Site(engine, schema=schema)
    assert ids(site, "") == [done, mail, old]
    assert ids(site, "order=oldest") == [old, mail, done]
    for query, found in {
        "state=completed": [done],
        "state=available&state=completed": [done, mail, old],
        "kind=mail": [mail],
        "queue=post": [mail],
        "priority=3": [mail],
        "tag=big": [old],
        f"id={old}&id={mail}": [mail, old],
        "arg=n.a:7": [old],
        "arg=s:x+y": [old],
        "arg=n.a:8": [],
        "meta=t:eu": [mail],
        "client=me": [done],
        "q=MAI": [mail],
        "until=2026-03-01T12:00:01": [old],
        "since=1h": [done, mail],
        "since=2026-03-02": [done, mail],
        "kind=": [done, mail, old],
    }.items():
        assert ids(site, query) == found, query


@pytest.mark.parametrize(
    "query",
    [
        "state=asleep",
        "priority=5",
        "priority=x",
        "id=x",
        "id=-1",
        "id=99999999999999999999",
        "arg=novalue",
        "arg=:1",
        "arg=a.b:1&arg=a:2&arg=a.c:3",
        "since=yesterday",
        "since=0001-01-01T00:00%2B14:00",
        "limit=0",
        "limit=9999",
        "after=rubbish",
        "order=sideways",
        "kind=%00",
        "q=%00",
    ],
)
def test_filters_that_cannot_be_meant(engine: Engine, schema: str, query: str) -> None:
    """A filter that cannot be used is answered with a page that names it."""
    answer = Site(engine, schema=schema).get(f"/jobs?{query}")
    assert answer.status == 400
    assert "A filter cannot be used." in answer.text


def test_page_by_page(engine: Engine, schema: str) -> None:
    """The next page continues the one before, keeps the filters, and there is a way back."""
    jobs = [insert_job(engine, schema, kind="mail") for _ in range(5)]
    insert_job(engine, schema)
    site = Site(engine, schema=schema)
    address, seen = "/jobs?kind=mail&limit=2", []
    for _ in range(4):
        page = site.get(address).page
        seen += [
            int(each["value"] or 0)
            for each in page.all("input")
            if (each.get("aria-label") or "").startswith("Tick job")
        ]
        following = [each["href"] for each in page.all("a") if each.get("rel") == "next"]
        if not following:
            break
        address = following[0] or ""
    assert seen == jobs[::-1]
    [first] = [each["href"] for each in page.all("a") if each.get("rel") == "first"]
    assert first == "/ops/jobs/jobs?kind=mail&limit=2"


def test_as_csv(engine: Engine, schema: str) -> None:
    """A list as CSV has what is shown, and no cell that a spreadsheet takes for a formula."""
    insert_job(engine, schema, kind="=cmd", queue="@sum", args={"a": 'x,"y"'})
    answer = Site(engine, schema=schema).get("/jobs.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    [row] = csv.DictReader(io.StringIO(answer.text))
    assert (row["kind"], row["queue"], row["args"]) == ("'=cmd", "'@sum", '{"a": "x,\\"y\\""}')


def test_counts_stop(engine: Engine, schema: str) -> None:
    """Few statements make a page, however often: what costs most is shared."""
    insert_job(engine, schema)
    site = Site(engine, schema=schema)
    site.get("/jobs")
    with statements(engine) as seen:
        assert site.get("/jobs").status == 200
    assert len([each for each in seen if "set_config" not in each]) <= 3


def whole(engine: Engine, schema: str, **changes: Any) -> int:
    """Insert a job that has everything that a job can have."""
    errors = [
        {"at": "2026-03-01T11:00:00Z", "attempt": 1, "error": "ValueError: no", "trace": "T-1"},
        {"at": "2026-03-01T11:10:00Z", "attempt": 2, "error": "Stuck job rescued by JobRescuer"},
    ]
    values = {
        "kind": "report",
        "args": {"card": SECRET, "n": 2**53 + 1},
        "state": JobState.completed,
        "attempt": 3,
        "attempted_at": T0 - timedelta(seconds=3),
        "attempted_by": ["one", "two", "three"],
        "errors": errors,
        "tags": ["monthly"],
        "metadata_": {
            "output": {"card": SECRET},
            "river:log": [{"attempt": 3, "log": f"charged {SECRET}\n"}],
            "river:resumable_step": "load",
            "snoozes": 0,
            "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
            "customer": 7,
        },
        **changes,
    }
    return insert_job(engine, schema, **values)


def test_a_job(engine: Engine, schema: str) -> None:
    """A job's page has its attempts with client, error, trace and log, and all its values."""
    before = insert_job(engine, schema)
    job_id = whole(engine, schema)
    link = Link("Trace", "https://t.example/{trace_id}/{job_id}")
    site = Site(engine, schema=schema, links=[link])
    answer = site.get(f"/jobs/{job_id}")
    assert answer.status == 200
    text = answer.page.text
    for each in (
        "ValueError: no",
        "T-1",
        "The client that ran this attempt disappeared",
        f"charged {SECRET}",
        str(2**53 + 1),
        '"customer": 7',
        "monthly",
        "lost with its client",
        "finalized",
        "completed",
    ):
        assert each in text, each
    assert f"https://t.example/{'a' * 32}/{job_id}" in answer.page.links()
    assert f"/ops/jobs/jobs/{before}" in answer.page.links()
    data = site.get(f"/jobs/{job_id}.json").json["data"]
    assert data["args"]["value"]["n"] == 2**53 + 1
    assert [each["client"] for each in data["attempts"]] == ["one", "two", "three"]
    assert [each["rescued"] for each in data["attempts"]] == [False, True, False]
    assert data["resume_step"] == "load"
    assert (data["older_id"], data["newer_id"]) == (before, None)


def test_parts_as_files(engine: Engine, schema: str) -> None:
    """Args, output, metadata and logs are whole files, which a browser saves and does not show."""
    job_id = whole(engine, schema)
    site = Site(engine, schema=schema)
    for part, found in (("args", SECRET), ("output", SECRET), ("metadata", "customer")):
        answer = site.get(f"/jobs/{job_id}/{part}")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert found in json.dumps(answer.json)
    log = site.get(f"/jobs/{job_id}/log?attempt=3")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert log.text == f"charged {SECRET}\n"
    assert site.get(f"/jobs/{job_id}/log?attempt=2").text == ""
    assert site.get(f"/jobs/{job_id}/log?attempt=x").status == 400
    assert site.get(f"/jobs/{job_id}/errors").status == 404


def test_no_job(engine: Engine, schema: str) -> None:
    """A job that does not exist, or cannot, is answered with 404."""
    site = Site(engine, schema=schema)
    for job_id in ("1", "0", str(2**63 - 1), str(2**63), "9" * 19, "9" * 40, "x", "-1", "%00"):
        for suffix in ("", ".json", "/args"):
            assert site.get(f"/jobs/{job_id}{suffix}").status == 404


ADDRESSES = ("/jobs/{}", "/jobs/{}.json", "/jobs", "/jobs.json", "/jobs.csv")


def test_without_the_right_to_see_args(engine: Engine, schema: str) -> None:
    """Who may not see args sees none, in no format, and cannot guess them by a filter."""
    job_id = whole(engine, schema)
    site = Site(engine, schema=schema, authorize=lambda environ: User(name="bob"))
    for address in ADDRESSES:
        answer = site.get(address.format(job_id))
        assert answer.status == 200
        assert "4111" not in answer.text
        assert "customer" not in answer.text
    for part in ("args", "output", "metadata", "log"):
        assert site.get(f"/jobs/{job_id}/{part}").status == 403
    for query in ("arg=card:1", "meta=customer:7", "q=4111"):
        assert site.get(f"/jobs?{query}").status == 403


def test_redacted(engine: Engine, schema: str) -> None:
    """What redact hides leaves the server in no format: not in args, output, logs or errors."""
    job_id = whole(
        engine,
        schema,
        errors=[
            {"at": "2026-03-01T11:00:00Z", "attempt": 1, "error": SECRET, "trace": f"T {SECRET}"}
        ],
    )
    paths = set()

    def redact(job: Any, path: tuple[Any, ...], value: Any) -> Any:
        assert job.kind == "report"
        paths.add(path)
        if path[-1] == "card":
            return "****"
        return value.replace(SECRET, "****") if isinstance(value, str) else value

    site = Site(engine, schema=schema, redact=redact)
    for address in (*ADDRESSES, "/jobs/{}/args", "/jobs/{}/output", "/jobs/{}/log"):
        answer = site.get(address.format(job_id))
        assert answer.status == 200
        assert "4111" not in answer.text
    assert "****" in site.get(f"/jobs/{job_id}").text
    assert {("args", "card"), ("args", "n"), ("output", "card"), ("log",), ("error",)} <= paths


def test_a_redact_that_fails_hides(engine: Engine, schema: str) -> None:
    """An error in redact hides the value, and the page is shown all the same."""
    job_id = whole(engine, schema, errors=[])
    site = Site(engine, schema=schema, redact=lambda job, path, value: 1 / 0)
    for address in ADDRESSES:
        answer = site.get(address.format(job_id))
        assert answer.status == 200
        assert "4111" not in answer.text
    assert "(hidden)" in site.get(f"/jobs/{job_id}").text


def test_the_log_so_far_of_a_running_job(engine: Engine, schema: str) -> None:
    """What a running job has logged is shown before it ends, to those who may see args."""
    job_id = insert_job(engine, schema, state="running", attempted_by=["web-1"])
    logs = {str(job_id): {"attempt": 1, "log": "page 1 of 3 <b>"}}
    row = insert(ClientRecord).values(id="web-1", hostname="host", pid=1, metadata_={"logs": logs})
    with engine.begin() as connection:
        connection.execute(row, execution_options={"schema_translate_map": {None: schema}})
    page = Site(engine, schema=schema).get(f"/jobs/{job_id}")
    assert "page 1 of 3 &lt;b&gt;" in page.text
    only = Site(engine, schema=schema, authorize=lambda _: User(name="eve"))
    for address in (
        f"/jobs/{job_id}",
        f"/jobs/{job_id}.json",
        "/clients.json",
        "/clients/web-1.json",
    ):
        assert "page 1 of 3" not in only.get(address).text
    hiding = Site(engine, schema=schema, redact=lambda job, path, value: "***")
    assert "page 1 of 3" not in hiding.get(f"/jobs/{job_id}").text

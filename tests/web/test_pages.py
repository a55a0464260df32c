"""Every page: what it shows, its formats, and what it costs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql import insert

from factories import insert_job
from riverrun.client.client import Client
from riverrun.execution.workers import Workers
from riverrun.jobs.args import JobArgs
from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, Leader, PeriodicRun, Queue, Sample
from riverrun.periodic_jobs import PeriodicJob
from riverrun.policies.schedule import Interval
from riverrun.verbs.actions import list_actions, record_action
from riverrun.verbs.periodic import list_periodic
from riverrun.verbs.queues import get_queue
from riverrun.web import User
from web.site import Site, statements


def put(engine: Engine, schema: str, table: Any, **values: Any) -> None:
    """Insert a row, unless there is one with its key."""
    with engine.begin() as connection:
        options = {"schema_translate_map": {None: schema}}
        statement = insert(table).values(**values).on_conflict_do_nothing()
        connection.execute(statement, execution_options=options)


def soon(seconds: float) -> datetime:
    """Return a time from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def fill(engine: Engine, schema: str) -> dict[str, str]:
    """Insert something of each kind of thing, and return an address of each kind of page."""
    put(engine, schema, Queue, name="mail")
    put(engine, schema, Queue, name="slow", paused_at=soon(-60))
    put(
        engine,
        schema,
        ClientRecord,
        id="worker-1",
        hostname="host",
        pid=7,
        queues=["mail"],
        metadata_={"slots": {"mail": 5}, "running": 2, "problems": ["no loop"]},
    )
    put(
        engine,
        schema,
        ClientRecord,
        id="worker-2",
        hostname="host",
        pid=8,
        queues=["slow"],
        heartbeat_at=soon(-600),
    )
    leader = {"leader_id": "worker-1", "elected_at": soon(-5), "expires_at": soon(3_600)}
    put(engine, schema, Leader, name="default", **leader)
    put(engine, schema, PeriodicRun, id="nightly", next_run_at=soon(-600), schedule="every 5 min")
    insert_job(engine, schema, queue="lost", kind="mail")
    for _ in range(2):
        insert_job(
            engine,
            schema,
            kind="charge",
            state=JobState.discarded,
            finalized_at=soon(-5),
            attempt=3,
            attempted_at=soon(-9),
            errors=[{"at": soon(-9).isoformat(), "attempt": 3, "error": "no card 17", "trace": ""}],
        )
    running = insert_job(
        engine,
        schema,
        state=JobState.running,
        queue="mail",
        attempted_by=["worker-1"],
        metadata_={"river:periodic_job_id": "nightly"},
    )
    record_action(engine, user="eve", action="retry", count=1, job_ids=[running], schema=schema)
    key = Site(engine, schema=schema).get("/failures.json").json["data"]["groups"][0]["key"]
    return {
        "overview": "/",
        "jobs": "/jobs",
        "job": f"/jobs/{running}",
        "queues": "/queues",
        "queue": "/queues/mail",
        "clients": "/clients",
        "client": "/clients/worker-1",
        "kinds": "/kinds",
        "kind": "/kinds/charge",
        "failures": "/failures",
        "failure": f"/failures/{key}",
        "periodic": "/periodic",
        "one_periodic": "/periodic/nightly",
        "actions": "/actions",
        "rescues": "/rescues",
        "health": "/health",
    }


LISTS = {"jobs", "queues", "clients", "kinds", "failures", "periodic", "actions", "rescues"}

FIRST = {"overview": 11, "queues": 8, "queue": 11, "client": 12, "kind": 7, "health": 9}
"""Most statements of a page that nobody has asked for in the last seconds. Default: 7."""

BUDGET = {
    "overview": 7,
    "jobs": 3,
    "job": 4,
    "queues": 3,
    "queue": 3,
    "clients": 3,
    "client": 5,
    "kinds": 3,
    "kind": 3,
    "failures": 2,
    "failure": 2,
    "periodic": 2,
    "one_periodic": 2,
    "actions": 2,
    "rescues": 1,
    "health": 5,
}
"""Most statements of each page once what requests share is known. A search in a window takes two,
and actions are only read where their table exists."""


def test_every_page(engine: Engine, schema: str) -> None:
    """Each page is HTML and JSON, lists are CSV, and a page that is shown again costs little."""
    addresses = fill(engine, schema)
    site = Site(engine, schema=schema)
    assert set(BUDGET) == set(addresses)
    linked: set[str] = set()
    for name, address in addresses.items():
        with statements(engine) as seen:
            answer = Site(engine, schema=schema).get(address)
        count = len([each for each in seen if "set_config" not in each])
        assert count <= FIRST.get(name, 7), (name, count)
        site.get(address)
        assert answer.status == 200, (name, answer.page.text)
        tags = [tag for tag, _ in answer.page.elements]
        assert tags.count("h1") == 1
        assert tags.count("table") == tags.count("caption")
        shown = site.get("/overview.json" if address == "/" else f"{address}.json")
        assert shown.headers["content-type"] == "application/json"
        assert (shown.json["version"], shown.json["page"]) == (1, name)
        table = site.get(f"{address}.csv")
        assert (table.status == 200) is (name in LISTS), name
        with statements(engine) as seen:
            site.get(address)
        count = len([each for each in seen if "set_config" not in each])
        assert count <= BUDGET[name], (name, count)
        linked.update(answer.page.links())
    for link in linked:
        if link.startswith("/ops/jobs") and "/failures" not in link:
            assert site.get(link).status == 200, link


def test_queues(engine: Engine, schema: str) -> None:
    """A queue's row says what waits, who works it, whether it is paused, and if no client does."""
    fill(engine, schema)
    answer = Site(engine, schema=schema).get("/queues.json")
    found = {each["name"]: each for each in answer.json["data"]["queues"]}
    assert set(found) == {"lost", "mail", "slow"}
    assert (found["lost"]["available"], found["lost"]["unworked"]) == (1, True)
    assert (found["mail"]["running"], found["mail"]["clients"]) == (1, ["worker-1"])
    assert (found["mail"]["slots"], found["mail"]["unworked"]) == (5, False)
    assert found["slow"]["paused_at"] is not None
    assert found["slow"]["clients"] == []


@pytest.mark.parametrize("name", ["mail", "a/b c", "..", "x.json", "-", "#?&é"])
def test_switches_a_queue(engine: Engine, schema: str, name: str) -> None:
    """A queue of any name has a page, is paused and resumed after a confirmation, and recorded."""
    put(engine, schema, Queue, name=name)
    site = Site(engine, schema=schema)
    [link] = [each for each in site.get("/queues").page.links() if "/queues/" in each]
    assert name in site.get(link).page.text
    [pause] = [each for each in site.get(link).page.links() if "pause_queue" in each]
    assert "Pause the queue" in site.get(pause).text
    form = {"switch": "pause_queue", "name": name, "back": "/queues"}
    answer = site.post("/switch", form)
    assert answer.headers["location"] == "/ops/jobs/queues?done=pause_queue&count=1"
    assert get_queue(engine, name, schema=schema).paused_at is not None
    site.post("/switch", {**form, "switch": "resume_queue"})
    assert get_queue(engine, name, schema=schema).paused_at is None
    assert [each.action for each in list_actions(engine, schema=schema)] == [
        "resume_queue",
        "pause_queue",
    ]


def test_switches_a_periodic_job(engine: Engine, schema: str) -> None:
    """A periodic job is paused, resumed and run now, each with the right for it."""
    fill(engine, schema)
    site = Site(engine, schema=schema)
    for switch in ("pause_periodic", "run_periodic"):
        address = f"/switch?switch={switch}&name=nightly"
        assert site.get(address).status == 200
        assert site.post("/switch", {"switch": switch, "name": "nightly"}).status == 303
    [row] = list_periodic(engine, schema=schema)
    assert row.paused_at is not None
    assert row.run_now_at is not None
    reader = Site(engine, schema=schema, authorize=lambda environ: User(name="bob"))
    for switch in ("pause_queue", "resume_queue", "resume_periodic", "run_periodic"):
        assert reader.post("/switch", {"switch": switch, "name": "nightly"}).status == 403
        assert reader.get(f"/switch?switch={switch}&name=nightly").status == 403
    for address in ("/queues", "/queues/mail", "/periodic", "/periodic/nightly"):
        assert "/switch?" not in reader.get(address).text
    for form in ({"switch": "x", "name": "a"}, {"switch": "pause_queue", "name": "*"}, {}):
        assert site.post("/switch", form).status == 400
    assert site.post("/switch", {"switch": "pause_queue", "name": "nobody"}).status == 404


def test_clients(engine: Engine, schema: str) -> None:
    """A client is live, silent or gone; the leader is named, and so is the lack of one."""
    site = Site(engine, schema=schema)
    assert "No client leads" in site.get("/clients").page.text
    fill(engine, schema)
    site = Site(engine, schema=schema)
    found = site.get("/clients.json").json["data"]["clients"]
    assert [(each["id"], each["state"], each["leads"]) for each in found] == [
        ("worker-1", "live", True),
        ("worker-2", "gone", False),
    ]
    assert "no loop" in site.get("/clients/worker-1").page.text
    assert "Its jobs are being rescued" in site.get("/clients/worker-2").page.text
    assert "This client has no row" in site.get("/clients/go-client").page.text


def test_failures(engine: Engine, schema: str) -> None:
    """Failed jobs stand in groups; a group is retried or deleted as a whole, once confirmed."""
    address = fill(engine, schema)["failure"]
    site = Site(engine, schema=schema)
    assert "no card #" in site.get("/failures").page.text
    page = site.get(address).page
    [retry] = [each for each in page.links() if "action=retry" in each]
    asked = site.get(retry)
    assert "Retry 2 jobs?" in asked.text
    ids = [each["value"] for each in asked.page.all("input") if each.get("name") == "id"]
    assert site.post("/act", {"action": "retry", "id": ids, "back": "/"}).status == 303
    [record, _] = list_actions(engine, schema=schema)
    assert (record.action, record.count) == ("retry", 2)
    assert site.get("/failures/nothing").status == 404


def test_kinds(engine: Engine, schema: str) -> None:
    """A kind has its figures, and is marked if this application has no worker for it."""

    @attrs.frozen
    class Charge(JobArgs, kind="charge"):
        """Args of no interest."""

    @attrs.frozen
    class Unused(JobArgs, kind="unused"):
        """Args of no interest."""

    def charge(args: Charge) -> None:
        """Do nothing."""

    def unused(args: Unused) -> None:
        """Do nothing."""

    fill(engine, schema)
    workers = Workers()
    workers.register(charge)
    workers.register(unused)
    site = Site(Client(engine, schema=schema, workers=workers))
    found = {each["kind"]: each for each in site.get("/kinds.json").json["data"]["kinds"]}
    assert (found["charge"]["failure_rate"], found["charge"]["registered"]) == (1.0, True)
    assert (found["unused"]["count"], found["unused"]["registered"]) == (0, True)
    assert found["greet"]["registered"] is False
    assert site.get("/kinds/unused").status == 200
    assert site.get("/kinds/nothing").status == 404


def test_periodic_jobs_without_an_id(engine: Engine, schema: str) -> None:
    """With a client, its periodic jobs without an id are at least counted."""

    @attrs.frozen
    class Tick(JobArgs, kind="tick"):
        """Args of no interest."""

    client = Client(
        engine, schema=schema, periodic_jobs=[PeriodicJob(Interval(60), lambda: Tick())]
    )
    assert "1 periodic job of this application has no id" in Site(client).get("/periodic").page.text


def test_actions_page_by_page(engine: Engine, schema: str) -> None:
    """Who did what is listed newest first, page by page."""
    for number in range(51):
        record_action(engine, user=f"user{number}", action="retry", count=number, schema=schema)
    site = Site(engine, schema=schema)
    page = site.get("/actions").page
    assert "user50" in page.text
    assert "user0" not in page.text.split()
    [following] = [each["href"] for each in page.all("a") if each.get("rel") == "next"]
    assert following is not None
    assert "user0" in site.get(following).page.text.split()
    assert site.get("/actions?after=x").status == 400


def test_names_that_nothing_has(engine: Engine, schema: str) -> None:
    """An address of nothing is 404, with a page."""
    site = Site(engine, schema=schema)
    for address in ("/x", "/x/", "/queues/a%20b", "/kinds/a", "/periodic/a", "/jobs/x"):
        answer = site.get(address)
        assert (answer.status, answer.page.all("main")) == (404, [{"id": "main", "tabindex": "-1"}])


def test_what_is_wrong(engine: Engine, schema: str) -> None:
    """The first page says what is wrong now, or that nothing is."""
    assert "No client leads" in Site(engine, schema=schema).get("/").page.text
    leader = {"leader_id": "river-1", "elected_at": soon(-5), "expires_at": soon(3_600)}
    put(engine, schema, Leader, name="default", **leader)
    assert "Nothing is wrong" in Site(engine, schema=schema).get("/").page.text
    fill(engine, schema)
    site = Site(engine, schema=schema)
    problems = site.get("/overview.json").json["data"]["problems"]
    found = {(each["kind"], each["subject"]) for each in problems}
    assert ("unworked_queue", "lost") in found
    for each in ("no live client works their queue: lost", "not healthy: worker-1 no loop"):
        assert each in site.get("/").page.text
    data = site.get("/overview.json").json["data"]
    assert sum(each["count"] for each in data["finished"] if each["state"] == "discarded") == 2
    assert data["failures"][0]["count"] == 2


def test_rescues(engine: Engine, schema: str) -> None:
    """Jobs that lost their client are listed with how often, when, and whose they were."""
    at = soon(-30)
    errors = [{"at": at.isoformat(), "attempt": 1, "error": "Stuck job rescued by JobRescuer"}]
    rescued = insert_job(
        engine,
        schema,
        kind="heavy",
        attempted_by=["worker-1"],
        errors=errors,
        metadata_={"river:rescue_count": 3},
    )
    insert_job(engine, schema)
    site = Site(engine, schema=schema)
    [job] = site.get("/rescues.json").json["data"]["jobs"]
    assert (job["id"], job["count"], job["client_ids"]) == (rescued, 3, ["worker-1"])
    assert "heavy" in site.get("/rescues").page.text
    assert f"/ops/jobs/jobs/{rescued}" in site.get("/clients/worker-1").page.links()


def test_health(engine: Engine, schema: str) -> None:
    """The versions of both lines, and the sizes of tables and indexes, are shown."""
    data = Site(engine, schema=schema).get("/health.json").json["data"]
    assert all(line["applied"] == line["newest"] for line in data["lines"])
    assert "river_job" in {table["name"] for table in data["tables"]}


def test_clients_of_other_languages(engine: Engine, schema: str) -> None:
    """A client that has claimed jobs is shown though it has no row, as River's has none."""
    insert_job(engine, schema, state=JobState.running, attempted_by=["go-1"], kind="greet")
    [other] = Site(engine, schema=schema).get("/clients.json").json["data"]["others"]
    assert (other["id"], other["works"]) == ("go-1", {"greet": 1})


@pytest.mark.parametrize("span", ["15m", "1h", "2d", "90d"])
@pytest.mark.parametrize("by", ["state", "queue", "kind"])
def test_charts(engine: Engine, schema: str, span: str, by: str) -> None:
    """What the leader has sampled is charted over each time, by state, queue and kind."""
    steps = {"15m": 10, "1h": 10, "2d": 900, "90d": 43_200}
    step_s = steps[span]
    at = datetime.fromtimestamp((datetime.now(UTC).timestamp() - 90) // step_s * step_s, UTC)
    counts = [0] * 23
    counts[3] = 4
    put(
        engine,
        schema,
        Sample,
        step_s=step_s,
        at=at,
        queue="mail",
        kind="greet",
        state="completed",
        count=4,
        wait_s=1.0,
        run_s=2.0,
        wait_counts=counts,
        run_counts=counts,
    )
    site = Site(engine, schema=schema)
    for address in (
        f"/?span={span}&by={by}",
        f"/queues/mail?span={span}",
        f"/kinds/greet?span={span}",
    ):
        insert_job(engine, schema, queue="mail", kind="greet")
        answer = site.get(address)
        assert answer.status == 200
        charts = [each for each in answer.page.all("svg") if each.get("class") == "chart"]
        assert len(charts) == 3, address
        assert answer.text.count("<caption") == answer.text.count("<table")
    assert site.get("/?span=1y").status == 400


def test_charts_without_samples(engine: Engine, schema: str) -> None:
    """Without samples the last 15 minutes are charted, and other times say what is missing."""
    fill(engine, schema)
    site = Site(engine, schema=schema)
    answer = site.get("/")
    assert [each for each in answer.page.all("svg") if each.get("class") == "chart"]
    assert "No job was finished in this time" in site.get("/?span=90d").page.text


def test_what_was_done_is_seen_at_once(engine: Engine, schema: str) -> None:
    """A page that was shown a moment ago shows what an action has changed since."""
    fill(engine, schema)
    site = Site(engine, schema=schema)

    def paused() -> list[str]:
        queues = site.get("/queues.json").json["data"]["queues"]
        return [each["name"] for each in queues if each["paused_at"]]

    assert paused() == ["slow"]
    site.post("/switch", {"switch": "pause_queue", "name": "mail"})
    assert paused() == ["mail", "slow"]
    [job] = site.get("/jobs.json?queue=lost").json["data"]["jobs"]
    site.post("/act", {"action": "cancel", "id": job["id"]})
    [job] = site.get("/jobs.json?queue=lost").json["data"]["jobs"]
    assert job["state"] == "cancelled"

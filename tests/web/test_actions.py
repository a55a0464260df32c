"""What a user does through the dashboard: confirmed, bounded, allowed and recorded."""

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import Engine, insert

from factories import T0, insert_job
from riverrun.client.client import Client
from riverrun.events import UserActed
from riverrun.jobs.listing import JobListParams
from riverrun.jobs.states import JobState
from riverrun.models import Job, Queue
from riverrun.verbs import get, list_jobs
from riverrun.verbs.actions import list_actions
from riverrun.web import User
from riverrun.web.pages import confirm
from web.site import Answer, Site


def discarded(engine: Engine, schema: str, count: int) -> None:
    """Insert discarded jobs."""
    rows = [{"kind": "greet", "args": {}, "state": JobState.discarded, "finalized_at": T0}] * count
    with engine.begin() as connection:
        options = {"schema_translate_map": {None: schema}}
        connection.execute(insert(Job), rows, execution_options=options)


def states(engine: Engine, schema: str) -> list[str]:
    """Return the states of all jobs, by id."""
    return [job.state for job in list_jobs(engine, JobListParams(), schema=schema).jobs]


def form_of(answer: Answer) -> dict[str, Any]:
    """Return the fields of the form on a confirmation page."""
    fields: dict[str, Any] = {}
    for each in answer.page.all("input"):
        if each.get("name") and each["name"] != "typed" and each["name"] not in {"theme", "zone"}:
            fields.setdefault(each["name"], []).append(each.get("value") or "")
    # The form of the preferences comes last.
    fields["back"] = fields["back"][:1]
    return fields


@pytest.mark.parametrize(
    ("action", "state", "after"),
    [
        ("retry", JobState.discarded, JobState.available),
        ("cancel", JobState.available, JobState.cancelled),
        ("delete", JobState.completed, None),
    ],
)
def test_acts_on_one_job(
    engine: Engine, schema: str, action: str, state: JobState, after: JobState | None
) -> None:
    """A job's page offers what its state allows; it is done after a confirmation, and recorded."""
    job_id = insert_job(engine, schema, state=state)
    site = Site(engine, schema=schema)
    [link] = [each for each in site.get(f"/jobs/{job_id}").page.links() if f"={action}&" in each]
    asked = site.get(link)
    assert asked.status == 200
    assert f"{action.title()} job {job_id}?" in asked.text
    assert states(engine, schema) == [state]
    done = site.post("/act", form_of(asked))
    assert done.status == 303
    # A deleted job has no page to come back to.
    page = "/jobs" if after is None else f"/jobs/{job_id}"
    assert done.headers["location"] == f"/ops/jobs{page}?done={action}&count=1"
    assert states(engine, schema) == ([] if after is None else [after])
    [record] = list_actions(engine, schema=schema)
    assert (record.user, record.action, record.count, record.job_ids) == (
        "ada",
        action,
        1,
        (job_id,),
    )
    assert "1 job was" in site.get(done.headers["location"]).text


@pytest.mark.parametrize(
    "back", ["//evil.example", "/\\evil.example", "/\t/evil.example", "evil:x"]
)
def test_the_way_back_stays_in_the_dashboard(engine: Engine, schema: str, back: str) -> None:
    """A link to a confirmation cannot make its way back lead to another host."""
    job_id = insert_job(engine, schema)
    site = Site(engine, schema=schema, base="")
    confirm = urlencode({"action": "cancel", "id": job_id, "back": back})
    switch = urlencode({"switch": "pause_queue", "name": "default", "back": back})
    links = [
        *site.get(f"/confirm?{confirm}").page.links(),
        *site.get(f"/switch?{switch}").page.links(),
    ]
    assert not [each for each in links if re.match(r"[^/#]|/[/\\\s]", each)]


def test_acts_on_ticked_jobs(engine: Engine, schema: str) -> None:
    """The ticked jobs are changed, and no others."""
    discarded(engine, schema, 3)
    site = Site(engine, schema=schema)
    page = site.get("/jobs").page
    ids = [each["value"] for each in page.all("input") if "Tick job" in str(each)]
    form = {"action": "retry", "id": [ids[0], ids[2]], "back": "/jobs?limit=3"}
    assert site.post("/confirm", form, site="cross-site").status == 403
    asked = site.post("/confirm", form)
    assert "Retry 2 jobs?" in asked.text
    done = site.post("/act", form_of(asked))
    assert done.headers["location"] == "/ops/jobs/jobs?limit=3&done=retry&count=2"
    assert states(engine, schema) == ["available", "discarded", "available"]
    assert site.post("/confirm", {"action": "retry", "back": "/jobs"}).status == 400
    many = {"action": "retry", "id": [2**62 + number for number in range(500)]}
    assert site.post("/confirm", many).status == 200


def test_all_is_bounded_by_what_the_page_had_seen(engine: Engine, schema: str) -> None:
    """All jobs that match are those that existed when the list was shown, and match the filter."""
    discarded(engine, schema, 2)
    other = insert_job(engine, schema, state=JobState.discarded, kind="other")
    site = Site(engine, schema=schema)
    [link] = [
        each
        for each in site.get("/jobs?state=discarded&kind=greet").page.links()
        if "/confirm?action=delete" in each
    ]
    discarded(engine, schema, 2)
    asked = site.get(link)
    assert "Delete 2 jobs?" in asked.text
    assert f"up to id {other}" in asked.text
    done = site.post("/act", form_of(asked))
    assert done.headers["location"].endswith("state=discarded&kind=greet&done=delete&count=2")
    assert len(states(engine, schema)) == 3


def test_without_a_filter_there_is_no_all(engine: Engine, schema: str) -> None:
    """All jobs of the table can never be changed at once."""
    job_id = insert_job(engine, schema)
    site = Site(engine, schema=schema)
    assert not [each for each in site.get("/jobs").page.links() if "/confirm" in each]
    for fields in (f"newest={job_id}", "", f"newest={job_id}&q=x", f"newest={job_id}&client=x"):
        assert site.get(f"/confirm?action=delete&{fields}").status == 400
        form = [pair.split("=") for pair in fields.split("&") if pair]
        assert site.post("/act", [("action", "delete"), *form]).status == 400
    assert states(engine, schema) == ["available"]


def test_many_jobs_in_batches(engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 1,000 jobs, the number is typed in; they are changed in batches, with progress."""
    monkeypatch.setattr(confirm, "TURN_S", 0.0)
    discarded(engine, schema, 2_001)
    site = Site(engine, schema=schema)
    newest = list_jobs(engine, JobListParams(descending=True, limit=1), schema=schema).jobs[0].id
    asked = site.get(f"/confirm?action=retry&state=discarded&newest={newest}&back=/jobs?a=b")
    assert "To confirm, type the number: 2001" in asked.text
    form = form_of(asked)
    for typed in ("", "2000", "all"):
        refused = site.post("/act", {**form, "typed": typed})
        assert refused.status == 400
        assert "not the number of jobs" in refused.text
    address = site.post("/act", {**form, "typed": "2,001"}).headers["location"]
    shown = site.get(address)
    assert "1,000 jobs done, 1,001 left." in shown.page.text
    [stop] = [each for each in shown.page.links() if "done=retry" in each]
    assert stop == "/ops/jobs/jobs?a=b&done=retry&count=1000"
    assert "1,000 jobs were made available" in site.get(stop).text
    steps = 1
    while (
        (answer := site.post("/act", form_of(site.get(address))))
        .headers["location"]
        .startswith("/ops/jobs/progress")
    ):
        address = answer.headers["location"]
        steps += 1
        assert steps < 5
    assert answer.headers["location"] == "/ops/jobs/jobs?a=b&done=retry&count=2001"
    assert [each.count for each in list_actions(engine, schema=schema)] == [1, 1_000, 1_000]


@pytest.mark.parametrize("right", ["retry", "cancel", "delete"])
def test_a_right_is_needed(engine: Engine, schema: str, right: str) -> None:
    """What a user may not do is not offered, and is refused by the server."""
    job_id = insert_job(engine, schema, state=JobState.retryable)
    others = {"view", "view_args", "retry", "cancel", "delete", "pause", "insert"} - {right}
    site = Site(engine, schema=schema, authorize=lambda environ: User(name="bob", rights=others))
    for address in (f"/jobs/{job_id}", "/jobs", "/jobs?state=retryable"):
        assert f"action={right}" not in site.get(address).text
        assert not re.search(f'name="action" value="{right}"', site.get(address).text)
    assert site.get(f"/confirm?action={right}&id={job_id}").status == 403
    assert site.post("/act", {"action": right, "id": job_id}).status == 403
    assert (
        site.post("/act", {"action": right, "state": "retryable", "newest": job_id}).status == 403
    )
    assert states(engine, schema) == ["retryable"]
    assert list_actions(engine, schema=schema) == []


def test_nothing_acts_by_get_or_from_elsewhere(engine: Engine, schema: str) -> None:
    """An action needs a POST of the dashboard's own origin."""
    job_id = insert_job(engine, schema)
    site = Site(engine, schema=schema)
    form = {"action": "delete", "id": job_id}
    assert site.get(f"/act?action=delete&id={job_id}").status == 404
    assert site.post("/act", form, site="cross-site").status == 403
    assert site.post("/act", form, site=None).status == 403
    assert site.post(f"/act?action=delete&id={job_id}").status == 400
    assert site.post("/act", form, CONTENT_TYPE="text/plain").status == 400
    assert site.post("/act", form, CONTENT_LENGTH="").status == 400
    assert site.post("/act", form, CONTENT_LENGTH="99999999").status == 400
    assert states(engine, schema) == ["available"]


@pytest.mark.parametrize(
    "form",
    [
        {"action": "explode", "id": "1"},
        {"action": "retry"},
        {"action": "retry", "id": "x"},
        {"action": "retry", "id": "99999999999999999999"},
        {"action": "retry", "id": "1", "newest": "-1", "state": "available"},
        {"action": "retry", "newest": str(2**63), "state": "available"},
        {"action": "retry", "newest": "1", "state": "available", "reached": "1e9"},
        {"action": "retry", "newest": "1", "state": "available", "done": "x"},
        {"action": "retry", "newest": "1", "kind": "\x00"},
    ],
)
def test_wrong_forms(engine: Engine, schema: str, form: dict[str, str]) -> None:
    """A form with a value that cannot be meant changes nothing, and is answered with a page."""
    insert_job(engine, schema)
    answer = Site(engine, schema=schema).post("/act", form)
    assert answer.status == 400
    assert "Traceback" not in answer.text
    assert states(engine, schema) == ["available"]


def test_what_cannot_be_changed_is_left(engine: Engine, schema: str) -> None:
    """A job that has moved on since the list was shown is left as it is, and counted out."""
    running = insert_job(engine, schema, state=JobState.running)
    site = Site(engine, schema=schema)
    assert "None of these jobs" in site.get(f"/confirm?action=delete&id={running}").text
    done = site.post("/act", {"action": "delete", "id": [running, 999], "back": "/jobs"})
    assert done.headers["location"].endswith("?done=delete&count=0")
    assert get(engine, running, schema=schema).state is JobState.running


def test_an_action_is_an_event(engine: Engine, schema: str) -> None:
    """The application's client publishes each action with its user and the ids."""
    job_id = insert_job(engine, schema)
    client = Client(engine, schema=schema)
    with client.hub.subscribe(UserActed) as events:
        Site(client).post("/act", {"action": "cancel", "id": job_id})
        event = events.get(timeout=30)
    assert isinstance(event, UserActed)
    assert (event.user, event.action, event.job_ids) == ("ada", "cancel", (job_id,))


def test_a_page_shows_what_was_just_done(engine: Engine, schema: str) -> None:
    """The page after an action shows its effect, not what was read for others before it."""
    options = {"schema_translate_map": {None: schema}}
    with engine.begin() as connection:
        connection.execute(insert(Queue).values(name="default"), execution_options=options)
    site = Site(engine, schema=schema)
    for switch in ("pause_queue", "resume_queue", "pause_queue"):
        offered = [each for each in site.get("/queues").page.links() if "/switch?" in each]
        assert [f"switch={switch}" in each for each in offered] == [True]
        form = {"switch": switch, "name": "default", "back": "/queues"}
        assert site.post("/switch", form).status == 303


def test_inserts_a_copy(engine: Engine, schema: str) -> None:
    """A copy is a new job with the args of the form, and is recorded; a wrong one is refused."""
    first = insert_job(engine, schema, args={"n": 2**53 + 1}, queue="mail", tags=["big"])
    site = Site(engine, schema=schema)
    page = site.get(f"/jobs/{first}/copy")
    assert str(2**53 + 1) in page.page.text
    form = {"args": '{"n": 9007199254740995}', "priority": "2"}
    done = site.post(f"/jobs/{first}/copy", form)
    assert done.headers["location"] == f"/ops/jobs/jobs/{first + 1}?done=insert&count=1"
    made = get(engine, first + 1, schema=schema)
    assert (made.args, made.priority, made.queue) == ({"n": 9007199254740995}, 2, "mail")
    assert made.tags == ("big",)
    [record] = list_actions(engine, schema=schema)
    assert (record.action, record.job_ids, record.user) == ("insert", (made.id,), "ada")
    for wrong in ({"args": "[]"}, {"args": ""}, {"args": "{}", "priority": "9"}, {"args": "{"}):
        assert site.post(f"/jobs/{first}/copy", wrong).status == 400
    assert len(states(engine, schema)) == 2
    for rights in ({"view", "insert"}, {"view", "view_args"}):
        other = Site(
            engine, schema=schema, authorize=lambda environ, r=rights: User(name="b", rights=r)
        )
        assert other.get(f"/jobs/{first}/copy").status == 403
        assert other.post(f"/jobs/{first}/copy", form).status == 403
    hidden = Site(engine, schema=schema, redact=lambda job, path, value: "****")
    assert hidden.get(f"/jobs/{first}/copy").status == 400


def test_sets_when_a_job_is_due(engine: Engine, schema: str) -> None:
    """A waiting job gets another time, which is recorded; a final one is left as it is."""
    job_id = insert_job(engine, schema)
    done_id = insert_job(engine, schema, state=JobState.completed)
    site = Site(engine, schema=schema)
    assert site.get(f"/jobs/{job_id}/run_at").status == 200
    done = site.post(f"/jobs/{job_id}/run_at", {"at": "2036-03-01T12:00"})
    assert done.headers["location"].endswith("?done=run_at&count=1")
    job = get(engine, job_id, schema=schema)
    assert (job.state, job.scheduled_at.isoformat()) == (
        JobState.scheduled,
        "2036-03-01T12:00:00+00:00",
    )
    assert [each.action for each in list_actions(engine, schema=schema)] == ["reschedule"]
    for wrong in ("", "soon", "9999-12-31T23:59:59-14:00"):
        assert site.post(f"/jobs/{job_id}/run_at", {"at": wrong}).status == 400
    assert site.post(f"/jobs/{done_id}/run_at", {"at": "1h"}).headers["location"].endswith("=0")
    assert get(engine, done_id, schema=schema).state is JobState.completed

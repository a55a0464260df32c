"""Acting in a browser: with scripts and without, by keys alone, and from elsewhere."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from browser.conftest import BASE, Visiting, below
from browser.driver import expect
from factories import T0, insert_job
from riverrun import Client, JobState, verbs
from riverrun.models import Job, PeriodicRun, Queue
from riverrun.web import Dashboard, User
from serving import wsgi

NARROW = {"viewport": {"width": 390, "height": 844}}
EVERY_5_S = 6_000
"""Milliseconds after which a list has been refreshed."""


@pytest.fixture
def client(engine: Engine, schema: str) -> Client:
    """A client whose tables have five jobs that wait, and two that failed for good."""
    for _ in range(5):
        insert_job(engine, schema, kind="send_email")
    for _ in range(2):
        insert_job(engine, schema, kind="charge_card", state="discarded", attempt=25)
    return Client(engine, schema=schema)


@pytest.fixture
def root(client: Client) -> Iterator[str]:
    """The address of the dashboard, where Ada may do all."""
    with wsgi(below(BASE, Dashboard(client, authorize=lambda _: User.all("ada")))) as root:
        yield f"{root}{BASE}"


def states(client: Client, kind: str) -> list[str]:
    """Return the states of the jobs of a kind, by id."""
    jobs = verbs.list_jobs(client.engine, schema=client.schema).jobs
    return [job.state.value for job in sorted(jobs, key=lambda job: job.id) if job.kind == kind]


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_ticked_jobs(visiting: Visiting, client: Client, root: str, scripts: bool) -> None:
    """Ticked jobs are cancelled once the number is confirmed, on a narrow screen too."""
    with visiting(root, java_script_enabled=scripts, **NARROW) as visit:
        page = visit.open("/jobs?state=available")
        for n in (1, 3):
            page.get_by_role("checkbox", name=f"Tick job {n}", exact=True).check()
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 2 jobs?")
        assert states(client, "send_email") == ["available"] * 5
        page.get_by_role("button", name="Cancel 2").click()
        expect(page.get_by_text("2 jobs were cancelled.")).to_be_visible()
    assert states(client, "send_email") == ["cancelled", "available"] * 2 + ["available"]


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_all_that_match(visiting: Visiting, client: Client, root: str, scripts: bool) -> None:
    """An action on all that match spares other kinds, and jobs that came after the list."""
    with visiting(root, java_script_enabled=scripts) as visit:
        page = visit.open("/jobs?state=available&kind=send_email")
        page.get_by_role("link", name="Delete all").click()
        insert_job(client.engine, client.schema, kind="send_email")
        page.get_by_role("button", name="Delete 5").click()
        expect(page.get_by_text("5 jobs were deleted.")).to_be_visible()
    assert states(client, "send_email") == ["available"]
    assert states(client, "charge_card") == ["discarded"] * 2


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_more_than_a_thousand(visiting: Visiting, client: Client, root: str, scripts: bool) -> None:
    """More than a thousand jobs are deleted only after their number is typed in."""
    row = {"kind": "old", "args": {}, "state": JobState.discarded, "finalized_at": T0}
    options = {"schema_translate_map": {None: client.schema}}
    with client.engine.begin() as connection:
        connection.execute(insert(Job), [row] * 1_001, execution_options=options)
    with visiting(root, java_script_enabled=scripts) as visit:
        visit.expected.append("status of 400")
        for typed in ("1000", "1001"):
            page = visit.open("/jobs?state=discarded&kind=old")
            page.get_by_role("link", name="Delete all").click()
            page.get_by_label("To confirm, type the number").fill(typed)
            page.get_by_role("button", name="Delete").click()
            if typed == "1000":
                expect(page.get_by_text("is not the number of jobs")).to_be_visible()
                assert len(states(client, "old")) > 0
        done = page.get_by_text("1,001 jobs were deleted.")
        further = page.get_by_role("button", name="Continue")
        expect(done.or_(further)).to_be_visible()
        if not scripts and further.is_visible():  # a slow machine stops after each batch
            further.click()
        expect(done).to_be_visible()
    assert states(client, "old") == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_job(visiting: Visiting, client: Client, root: str, scripts: bool) -> None:
    """A failed job is retried, and another one deleted, from their own pages."""
    with visiting(root, java_script_enabled=scripts) as visit:
        page = visit.open("/jobs/6")
        page.get_by_role("link", name="Retry", exact=True).click()
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_text("1 job was made available again.")).to_be_visible()
        page = visit.open("/jobs/7")
        page.get_by_role("link", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("1 job was deleted.")).to_be_visible()
    assert states(client, "charge_card") == ["available"]


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_copy_and_another_time(
    visiting: Visiting, client: Client, root: str, scripts: bool
) -> None:
    """A copy of a job is inserted with edited args, and a waiting job is due at another time."""
    with visiting(root, java_script_enabled=scripts, **NARROW) as visit:
        page = visit.open("/jobs/6")
        page.get_by_role("link", name="Insert a copy").click()
        page.get_by_label("Args").fill('{"name": "Grace"}')
        page.get_by_role("button", name="Insert").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Job 8")
        page = visit.open("/jobs/1")
        page.get_by_role("link", name="Run at a time").click()
        page.get_by_role("textbox").fill("2040-01-02T03:04")
        page.get_by_role("button", name="Set").click()
        expect(page.get_by_text("2040-01-02 03:04").first).to_be_visible()
    copied = verbs.get(client.engine, 8, schema=client.schema)
    assert (copied.kind, copied.args) == ("charge_card", {"name": "Grace"})
    assert states(client, "send_email") == ["scheduled"] + ["available"] * 4


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_switches(visiting: Visiting, client: Client, root: str, scripts: bool) -> None:
    """Queues and periodic jobs are paused, resumed and run by hand, and the record names who."""
    options = {"schema_translate_map": {None: client.schema}}
    with client.engine.begin() as connection:
        for row in (
            insert(Queue).values(name="default"),
            insert(PeriodicRun).values(id="nightly", next_run_at=T0),
        ):
            connection.execute(row, execution_options=options)
    with visiting(root, java_script_enabled=scripts, **NARROW) as visit:
        for path, name, noun in (
            ("/queues", "default", "queue"),
            ("/periodic", "nightly", "periodic job"),
        ):
            for action, done in (("Pause", "paused"), ("Resume", "resumed")):
                page = visit.open(path)
                page.get_by_role("row", name=name).get_by_role("link", name=action).click()
                page.get_by_role("button", name=action).click()
                expect(page.get_by_text(f"The {noun} is {done}.")).to_be_visible()
        page = visit.open("/periodic")
        page.get_by_role("link", name="Run now").click()
        page.get_by_role("button", name="Run now").click()
        expect(page.get_by_text("The leader inserts a job soon.")).to_be_visible()
        page = visit.open("/actions")
        expect(page.locator("#live-main tbody tr")).to_have_count(5)
        expect(page.locator("#live-main tbody").get_by_text("ada")).to_have_count(5)


def test_by_keys_alone(visiting: Visiting, client: Client, root: str) -> None:
    """A list is searched, a row chosen and its job cancelled without a mouse."""
    with visiting(root) as visit:
        page = visit.open("/jobs")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.keyboard.press("/")
        page.keyboard.type("send_email")  # j, k, x and r are letters here
        expect(page.get_by_label("Kind")).to_have_value("send_email")
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{root}/jobs?kind=send_email&queue=&since=&until=&tag=&priority="
                                 f"&id=&arg=&meta=&client=&q=&order=")  # fmt: skip
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        page.keyboard.press("x")
        expect(page.get_by_role("checkbox", name="Tick job 5")).to_be_checked()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("Job 5")
        tab_to(page, "Cancel")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Cancel job 5?")
        tab_to(page, "Cancel 1")
        page.keyboard.press("Enter")
        expect(page.get_by_text("1 job was cancelled.")).to_be_visible()
        page.keyboard.press("g")
        page.keyboard.press("j")
        expect(page).to_have_url(f"{root}/jobs")
    assert states(client, "send_email") == ["available"] * 4 + ["cancelled"]


def tab_to(page: Any, name: str) -> None:
    """Press Tab until the link or button of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            return
    pytest.fail(f"{name!r} is not reached by Tab")


def test_a_list_refreshes_itself(visiting: Visiting, client: Client, root: str) -> None:
    """A new job appears by itself; not while a row is ticked, when it would move away."""
    with visiting(root) as visit:
        visit.page.clock.install()
        page = visit.open("/jobs?state=available")
        rows = page.locator("tr[data-row]")
        expect(rows).to_have_count(5)
        insert_job(client.engine, client.schema, kind="send_email")
        page.clock.fast_forward(EVERY_5_S)
        expect(rows).to_have_count(6)
        page.get_by_role("checkbox", name="Tick job 1", exact=True).check()
        insert_job(client.engine, client.schema, kind="send_email")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for _ in range(3):
            page.clock.fast_forward(EVERY_5_S)
        expect(rows).to_have_count(6)
        assert asked == []
        page.get_by_role("checkbox", name="Tick job 1", exact=True).uncheck()
        page.clock.fast_forward(EVERY_5_S)
        expect(rows).to_have_count(7)


@pytest.mark.parametrize("site", ["127.0.0.1", "localhost"], ids=["same-site", "cross-site"])
def test_a_page_of_another_origin(visiting: Visiting, client: Client, root: str, site: str) -> None:
    """A form of another origin is refused, on the same machine as well, and nothing happens."""
    fields = "".join(
        f"<input name='{name}' value='{value}'>"
        for name, value in {"action": "delete", "id": "1", "back": "/jobs", "shown": "1"}.items()
    )
    form = f"<form method='post' action='{root}/act'>{fields}<button>Win</button></form>"

    def evil(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [f"<!doctype html><link rel=icon href='data:,'>{form}".encode()]

    with wsgi(evil) as elsewhere, visiting(root) as visit:
        visit.expected.extend(["status of 403", "a request to"])
        visit.page.goto(elsewhere.replace("127.0.0.1", site))
        visit.page.get_by_role("button", name="Win").click()
        expect(
            visit.page.get_by_text("does not come from a page of this dashboard")
        ).to_be_visible()
    assert states(client, "send_email") == ["available"] * 5


def test_a_user_who_may_only_look(visiting: Visiting, client: Client) -> None:
    """A user with `view` alone is offered no action, and sees no args."""
    pages = Dashboard(client, authorize=lambda _: User(name="eve"))
    with wsgi(below(BASE, pages)) as root, visiting(f"{root}{BASE}") as visit:
        for path in ("/jobs", "/jobs/6"):
            page = visit.open(path)
            expect(page.get_by_text("charge_card").first).to_be_visible()
            for name in ("Retry", "Cancel", "Delete", "Retry all", "Cancel all", "Delete all"):
                expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
                expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
            assert "Ada" not in page.content()
        visit.expected.append("status of 403")
        page = visit.open("/confirm?action=delete&id=1")
        expect(page.get_by_text("which you do not have")).to_be_visible()
    assert states(client, "charge_card") == [JobState.discarded] * 2

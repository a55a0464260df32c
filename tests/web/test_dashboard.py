"""The dashboard's guard, its addresses and its headers, whatever the page."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from factories import insert_job
from riverrun.client.client import Client
from riverrun.errors import InvalidOption, NotATransaction
from riverrun.web import Dashboard, Link, Right, User
from riverrun.web.render import assets
from riverrun.web.routes import MENU
from web.site import Site


def refuse(environ: dict[str, Any]) -> User | None:
    """Let nobody in."""
    return None


def test_shows_jobs(engine: Engine, schema: str) -> None:
    """A page of jobs has a row for each, with links below where the dashboard is mounted."""
    job_id = insert_job(engine, schema)
    answer = Site(engine, schema=schema).get("/jobs")
    assert answer.status == 200
    assert f"/ops/jobs/jobs/{job_id}" in answer.page.links()
    assert all(link.startswith(("/ops/jobs", "#")) for link in answer.page.links())


@pytest.mark.parametrize("base", ["", "/a", "/a b/ü"])
@pytest.mark.parametrize("path", ["/jobs", "/jobs/"])
def test_any_prefix(engine: Engine, schema: str, base: str, path: str) -> None:
    """Each asset and each page is found below any prefix, with and without a slash at the end."""
    site = Site(engine, base, schema=schema)
    page = site.get(path).page
    addresses = [*(each["href"] for each in page.all("link")), page.all("script")[0]["src"]]
    for address in (*addresses, page.all("form")[0]["action"]):
        assert address is not None
        assert site.get(address).status == 200


def test_closed_unless_authorized(engine: Engine, schema: str) -> None:
    """Without authorize there is no dashboard, and a stranger sees nothing of it but its style."""
    with pytest.raises(TypeError):
        Dashboard(engine)  # type: ignore[call-arg]
    site = Site(engine, schema=schema, authorize=refuse, title="Secret plans")
    for address in ("/", "/jobs", "/jobs.json", "/jobs.csv", "/nothing", "/static/nothing"):
        answer = site.get(address)
        assert answer.status == (404 if "static" in address else 403)
        assert "Secret plans" not in answer.text
    assert site.post("/preferences", {"theme": "dark"}).status == 403
    assert site.get(f"/static/{assets()['app.css'].name}").status == 200


@pytest.mark.parametrize(
    "authorize",
    [lambda environ: True, lambda environ: "ada", lambda environ: 1 / 0],
    ids=["true", "a name", "raises"],
)
def test_a_wrong_authorize_shows_nothing(engine: Engine, schema: str, authorize: Any) -> None:
    """An authorize that raises or returns no User lets nobody in, and its error is not shown."""
    answer = Site(engine, schema=schema, authorize=authorize).get("/jobs")
    assert answer.status == 500
    assert "ZeroDivision" not in answer.text
    assert "jobs" not in answer.text


def test_a_user_without_the_right_to_view(engine: Engine, schema: str) -> None:
    """The right to act is not the right to look."""
    site = Site(engine, schema=schema, authorize=lambda environ: User(name="ada", rights={"retry"}))
    assert site.get("/jobs").status == 403


def test_authorize_is_asked_each_time(engine: Engine, schema: str) -> None:
    """Each request but one for an asset is authorized, with the environ that the host gave."""
    seen = []

    def authorize(environ: dict[str, Any]) -> User:
        seen.append(environ["myapp.user"])
        return User(name=environ["myapp.user"])

    site = Site(engine, schema=schema, authorize=authorize)
    for name in ("ada", "grace"):
        assert name in site.get("/jobs", **{"myapp.user": name}).text
        site.get(f"/static/{assets()['app.js'].name}")
    assert seen == ["ada", "grace"]


def test_headers(engine: Engine, schema: str) -> None:
    """Pages are never stored, and allow no script, style, frame or form but the dashboard's."""
    site = Site(engine, schema=schema)
    for address in ("/jobs", "/jobs.json", "/nothing"):
        headers = site.get(address).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
    text = site.get("/jobs").text
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script>|javascript:", text)


def test_assets(engine: Engine, schema: str) -> None:
    """Assets are small, are compressed for browsers that accept it, and are kept for ever."""
    assert sum(len(asset.packed) for asset in assets().values()) <= 30_000
    assert len(assets()["app.js"].packed) <= 6_000
    site = Site(engine, schema=schema, authorize=refuse)
    address = f"/static/{assets()['app.css'].name}"
    assert "immutable" in site.get(address).headers["cache-control"]
    assert site.get(address, HTTP_ACCEPT_ENCODING="gzip, br").headers["content-encoding"] == "gzip"
    assert site.post(address).status == 405
    for other in ("/static/app.css", "/static/../dashboard.py"):
        assert site.get(other).status == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, 303),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "none"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "https://jobs.example"}, 403),
        ({}, 403),
        ({"HTTP_ORIGIN": "https://jobs.example"}, 303),
        ({"HTTP_ORIGIN": "https://jobs.example:8443"}, 403),
        ({"HTTP_ORIGIN": "https://evil.example"}, 403),
        ({"HTTP_ORIGIN": "https://jobs.example.evil.example"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_ORIGIN": "https://["}, 403),
    ],
)
def test_only_the_dashboards_own_pages_post(
    engine: Engine, schema: str, headers: dict[str, str], status: int
) -> None:
    """A POST must come from the dashboard's own origin, as its browser states it."""
    answer = Site(engine, schema=schema).post("/preferences", {"zone": "utc"}, site=None, **headers)
    assert answer.status == status


@pytest.mark.parametrize(
    ("back", "location"),
    [
        ("/jobs?state=running&kind=a%26b", "/ops/jobs/jobs?state=running&kind=a%26b"),
        ("", "/ops/jobs/"),
        ("https://evil.example/", "/ops/jobs/"),
        ("//evil.example/", "/ops/jobs/"),
        ("/%2Fevil.example/", "/ops/jobs/"),
        ("/\\evil.example/", "/ops/jobs/%5Cevil.example/"),
        ("/a\r\nSet-Cookie: b=c", "/ops/jobs/a%0D%0ASet-Cookie:%20b%3Dc"),
    ],
)
def test_goes_back_to_its_own_pages(engine: Engine, schema: str, back: str, location: str) -> None:
    """After a form the browser is sent back to a page of the dashboard, and nowhere else."""
    site = Site(engine, schema=schema)
    answer = site.post("/preferences", {"theme": "dark", "back": back})
    assert (answer.status, answer.headers["location"]) == (303, location)
    rooted = Site(engine, "", schema=schema)
    answer = rooted.post("/preferences", {"theme": "dark", "back": back})
    assert re.match(r"/(?!/)", answer.headers["location"])


def test_preferences(engine: Engine, schema: str) -> None:
    """Colours and times are kept in cookies that are the dashboard's alone."""
    site = Site(engine, schema=schema)
    [cookie] = site.post("/preferences", {"theme": "dark"}).cookies
    assert cookie.startswith("riverrun_theme=dark; Path=/ops/jobs; ")
    assert "SameSite=Lax" in cookie
    site.cookies["riverrun_theme"] = "dark"
    assert site.get("/jobs").page.all("html")[0]["data-theme"] == "dark"
    site.cookies["riverrun_theme"] = '"><script>'
    assert site.get("/jobs").page.all("html")[0]["data-theme"] == "system"
    assert site.post("/preferences", {"theme": "pink"}).status == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "x"])
def test_other_methods(engine: Engine, schema: str, method: str) -> None:
    """A page is only read with GET or HEAD, and a form only sent with POST."""
    site = Site(engine, schema=schema)
    answer = site.ask(method, "/jobs")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert site.ask("HEAD", "/jobs").body == b""
    assert site.post("/jobs").status == 404
    assert site.get("/preferences").status == 404


def test_nothing_new_is_not_sent_again(engine: Engine, schema: str) -> None:
    """A browser that has a page gets 304 until something but ages has changed."""
    site = Site(engine, schema=schema)
    insert_job(engine, schema)
    etag = site.get("/jobs").headers["etag"]
    again = site.get("/jobs", HTTP_IF_NONE_MATCH=etag)
    assert (again.status, again.body) == (304, b"")
    insert_job(engine, schema)
    later = Site(engine, schema=schema)  # which shares nothing with the one before
    changed = later.get("/jobs", HTTP_IF_NONE_MATCH=etag)
    assert changed.status == 200
    assert changed.headers["etag"] != etag


def test_too_slow(engine: Engine, schema: str) -> None:
    """A page whose statements take too long ends in a page that says what to narrow."""
    insert_job(engine, schema)
    with engine.begin() as blocker:
        blocker.exec_driver_sql(f"LOCK TABLE {schema}.river_job IN ACCESS EXCLUSIVE MODE")
        answer = Site(engine, schema=schema).get("/jobs")
    assert answer.status == 503
    assert "Narrow the list" in answer.text, answer.text


def test_the_database_cannot_be_reached(caplog: pytest.LogCaptureFixture) -> None:
    """A page says so, and the log says why."""
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    answer = Site(nowhere).get("/jobs")
    assert answer.status == 503
    assert "The database does not answer" in answer.text
    [line] = [each.getMessage() for each in caplog.records if each.name.startswith("riverrun")]
    assert "the database did not answer: OperationalError" in line


def test_connections_that_the_server_has_ended(engine: Engine, schema: str) -> None:
    """After a restart of the server, the first page is a page, although the pool has old ones."""
    host = create_engine(engine.url)
    with host.connect() as one, host.connect() as two, engine.begin() as other:
        for kept in (one, two):
            pid = kept.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            kept.commit()  # so that it comes back to the pool without a word to the server
            other.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 10000)")
    assert Site(host, schema=schema).get("/jobs").status == 200
    host.dispose()


def test_missing_tables(engine: Engine) -> None:
    """Where the tables are missing, a page says so, and how to make them."""
    answer = Site(engine, schema="no_such_schema").get("/jobs")
    assert answer.status == 503
    assert "riverrun migrate up" in answer.text


def test_a_client_brings_its_schema(engine: Engine, schema: str) -> None:
    """With a client, its engine and its schema are used."""
    job_id = insert_job(engine, schema)
    answer = Site(Client(engine, schema=schema)).get("/jobs.json")
    assert [job["id"] for job in answer.json["data"]["jobs"]] == [job_id]


def test_wrong_options(engine: Engine) -> None:
    """Options of the wrong kind are refused when the dashboard is made."""
    with pytest.raises(NotATransaction, match="a Client or an Engine"):
        Dashboard("postgresql://", authorize=refuse)  # type: ignore[arg-type]
    for options in (
        {"authorize": None},
        {"authorize": refuse, "redact": "args"},
        {"authorize": refuse, "links": ["https://a"]},
        {"authorize": refuse, "title": ""},
        {"authorize": refuse, "schema": ""},
    ):
        with pytest.raises(InvalidOption):
            Dashboard(engine, **options)


def test_users() -> None:
    """A user has only the rights that are named, and no unknown ones."""
    assert User(name="ada").rights == {Right.view}
    assert User.all("ada").rights == set(Right)
    assert User(name="ada", rights={"view", "retry"}).may(Right.retry)
    for options in ({"name": ""}, {"name": "a", "rights": "view"}, {"name": "a", "rights": {"x"}}):
        with pytest.raises(InvalidOption):
            User(**options)


def test_links() -> None:
    """A link leads to an address of the web, made of what is known of a job."""
    link = Link("Trace", "https://t.example/{trace_id}?q={kind}")
    assert link.address({"trace_id": "1", "kind": "a b&c"}) == "https://t.example/1?q=a%20b%26c"
    assert link.address({"trace_id": None, "kind": "a"}) is None
    for url in (
        "javascript:alert(1)",
        "//evil.example",
        "https://a/{password}",
        "https://a/{",
        "x",
    ):
        with pytest.raises(InvalidOption):
            Link("Trace", url)


def test_one_connection_is_enough(engine: Engine, schema: str) -> None:
    """A dashboard whose engine has a pool of one connection shows every page, and acts."""
    alone = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=5)
    try:
        site = Site(alone, schema=schema)
        job_id = insert_job(alone, schema)
        for _, path, _ in MENU:
            assert site.get(path).status == 200
        for address, form in (
            (f"/jobs/{job_id}/copy", {"args": "{}"}),
            (f"/jobs/{job_id}/run_at", {"at": "1h"}),
            ("/act", {"action": "cancel", "id": job_id}),
            ("/act", {"action": "delete", "state": "cancelled", "newest": job_id, "shown": 1}),
        ):
            assert site.post(address, form).status == 303, address
    finally:
        alone.dispose()


def test_many_threads(engine: Engine, schema: str) -> None:
    """One dashboard answers the threads of a server side by side."""
    job_id = insert_job(engine, schema)
    site = Site(engine, schema=schema)
    addresses = [path for _, path, _ in MENU] + [f"/jobs/{job_id}", "/jobs.json"]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(site.get, addresses * 3))
    assert {answer.status for answer in answers} == {200}


def test_a_notice_is_shown_once(engine: Engine, schema: str) -> None:
    """The notice of an action is in no link of its page, so that it is not repeated."""
    site = Site(engine, schema=schema)
    page = site.get("/jobs?kind=mail&done=retry&count=2").page
    assert "2 jobs were made available again." in page.text
    assert not [link for link in page.links() if "done=" in link]
    assert "done=" not in str(page.all("input"))

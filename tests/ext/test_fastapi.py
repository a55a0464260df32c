"""FastAPI: AsyncSessions of both drivers, and a worker within the web process."""

import pytest
from sqlalchemy import Engine, text

from ext.conftest import Site
from riverrun import verbs
from waiting import until


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_shop_over_http(
    site: Site, schema_engine: Engine, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """Jobs commit with the request, by the idiom and the helper, and are worked beside it."""
    monkeypatch.setenv("DATABASE_URL", site.url)
    from ext.apps.fastapi_shop import Base

    Base.metadata.create_all(schema_engine)
    site.serve(
        *("uvicorn", "fastapi_shop:app", "--port", str(site.port)),
        environment={"DRIVER": driver},
    )
    for name, how in (("Ada", "idiom"), ("Bob", "helper"), ("twice", "helper")):
        status, said = site.post("/signup", {"name": name, "how": how})
        assert status == 200, site.logs()
        assert said["job_id"]
    assert site.post("/signup", {"name": "nobody", "how": "raise"})[0] == 500
    until(lambda: all(by for _, by in site.users()), "greetings")
    assert sorted(name for name, _ in site.users()) == ["Ada", "Bob", "twice"]
    until(lambda: not verbs.count_jobs(schema_engine), "the end of every job")


def test_a_server_that_stops_cancels_its_workers(
    site: Site, schema_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops cancels `async def` workers; their writes and attempt are undone."""
    monkeypatch.setenv("DATABASE_URL", site.url)
    from ext.apps.fastapi_shop import Base

    Base.metadata.create_all(schema_engine)
    environment = {"SOFT_STOP": "0.1"}
    site.serve("uvicorn", "fastapi_shop:app", "--port", str(site.port), environment=environment)
    _, said = site.post("/signup", {"name": "slow"})
    # FastAPI answers before a dependency's end, which is the commit.
    until(
        lambda: [job.state for job in verbs.list_jobs(schema_engine).jobs] == ["running"],
        "its attempt",
    )
    site.stop()
    job = verbs.get(schema_engine, said["job_id"])
    assert (job.state, job.attempt, job.errors) == ("available", 0, ())
    with schema_engine.connect() as connection:
        assert connection.scalar(text("SELECT greeted_by FROM shop_user")) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql+psycopg://u:hidden@127.0.0.1:1/db", "OperationalError"),
        (None, "riverrun migrate up"),
    ],
    ids=["away", "empty"],
)
def test_a_server_that_cannot_start_ends(
    site: Site, empty_database: Engine, url: str | None, problem: str
) -> None:
    """Without a database or its tables the lifespan fails, and no thread keeps the server up."""
    url = url or empty_database.url.render_as_string(hide_password=False)
    uvicorn = ("uvicorn", "fastapi_shop:app", "--port", str(site.port))
    said = site.run(*uvicorn, environment={"DATABASE_URL": url}, code=3, stderr=True)
    assert problem in said
    assert "hidden" not in said

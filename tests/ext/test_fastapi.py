"""FastAPI: AsyncSessions with both drivers, and a worker in the web process."""

import pytest
from sqlalchemy import Engine, text

from ext.conftest import Site
from riverrun import verbs
from waiting import until


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_shop_over_http(
    site: Site, schema_engine: Engine, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """Jobs commit with the request, and are worked in the same process."""
    monkeypatch.setenv("DATABASE_URL", site.url)
    from ext.apps.fastapi_shop import Base

    Base.metadata.create_all(schema_engine)
    site.serve(
        *("uvicorn", "fastapi_shop:app", "--port", str(site.port)),
        environment={"DRIVER": driver},
    )
    for name, how in (("Ada", "idiom"), ("Bob", "helper"), ("twice", "helper")):
        status, answer = site.post("/signup", {"name": name, "how": how})
        assert status == 200, site.logs()
        assert answer["job_id"]
    assert site.post("/signup", {"name": "nobody", "how": "raise"})[0] == 500
    until(lambda: all(by for _, by in site.users()), "greetings")
    assert sorted(name for name, _ in site.users()) == ["Ada", "Bob", "twice"]
    until(lambda: not verbs.count_jobs(schema_engine), "the end of every job")


def test_a_server_that_stops_cancels_its_workers(
    site: Site, schema_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops cancels `async def` workers; their writes and attempts are undone."""
    monkeypatch.setenv("DATABASE_URL", site.url)
    from ext.apps.fastapi_shop import Base

    Base.metadata.create_all(schema_engine)
    environment = {"SOFT_STOP": "0.1"}
    site.serve("uvicorn", "fastapi_shop:app", "--port", str(site.port), environment=environment)
    _, answer = site.post("/signup", {"name": "slow"})
    # FastAPI answers before a dependency ends, and the commit happens then.
    until(
        lambda: [job.state for job in verbs.list_jobs(schema_engine).jobs] == ["running"],
        "its attempt",
    )
    site.stop()
    job = verbs.get(schema_engine, answer["job_id"])
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
    """Without the database or its tables, the lifespan fails, and the server exits."""
    url = url or empty_database.url.render_as_string(hide_password=False)
    uvicorn = ("uvicorn", "fastapi_shop:app", "--port", str(site.port))
    answer = site.run(*uvicorn, environment={"DATABASE_URL": url}, code=3, stderr=True)
    assert problem in answer
    assert "hidden" not in answer

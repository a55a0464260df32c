"""FastAPI: AsyncSessions of both drivers, and a worker within the web process."""

import pytest
from sqlalchemy import Engine

from ext.conftest import Site
from riverrun import verbs
from said import until


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

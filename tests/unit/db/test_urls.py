"""Where a PostgreSQL is, in any spelling."""

from typing import Any

import pytest
from sqlalchemy import make_url

from riverrun import Client
from riverrun.db.urls import psycopg_url
from riverrun.errors import UnsupportedDatabase

SECRET = "hid/den@pa,ss:w0rd"
QUOTED = "hid%2Fden%40pa%2Css%3Aw0rd"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h/db", {"host": "h", "user": "u", "password": "p", "dbname": "db"}),
        ("postgresql://h:5433/db", {"host": "h", "port": 5433, "dbname": "db"}),
        ("postgresql+psycopg2://h/db?sslmode=require", {"host": "h", "sslmode": "require"}),
        ("postgresql+asyncpg://h/db?ssl=require", {"host": "h", "sslmode": "require"}),
        ("postgresql+asyncpg://h/db?ssl=true&timeout=3", {"connect_timeout": "3"}),
        ("postgresql+asyncpg://h/db?prepared_statement_cache_size=0", {"host": "h"}),
        ("postgresql+pg8000://h/db", {"host": "h", "dbname": "db"}),
        ("postgresql:///db?host=/tmp/x", {"host": "/tmp/x", "dbname": "db"}),
        ("postgresql://u@h1:1,h2:2/db", {"host": "h1,h2", "port": "1,2", "user": "u"}),
        ("postgresql://h1,h2:2/db", {"host": "h1,h2", "port": ",2", "dbname": "db"}),
        ("postgresql://h1,h2/db", {"host": "h1,h2", "dbname": "db"}),
        ("postgresql://h1,h2", {"host": "h1,h2"}),
        ("postgresql://[::1]:1,[::2]:2/db", {"host": "::1,::2", "port": "1,2"}),
        (
            "postgresql+asyncpg://u:p@h1:1,h2:2/db?target_session_attrs=primary",
            {"host": "h1,h2", "port": "1,2", "target_session_attrs": "primary", "password": "p"},
        ),
        (f"postgres://u:{QUOTED}@h1,h2/db", {"password": SECRET, "host": "h1,h2"}),
        ("postgresql://u:a,b@h/db", {"password": "a,b", "host": "h"}),
        ("host=h dbname=db", {"host": "h", "dbname": "db"}),
        ("host=h1,h2 port=5433 user=u dbname=db", {"host": "h1,h2", "port": "5433,5433"}),
        (f"host=h port=5433 password='{SECRET}'", {"password": SECRET, "port": "5433"}),
        ("dbname=db host=/tmp/x application_name=web", {"application_name": "web"}),
        ("dbname=db", {"dbname": "db"}),
    ],
)
def test_spellings(url: str, expected: dict[str, object]) -> None:
    """Each spelling leads psycopg 3 to the same place."""
    client = Client.from_url(url)
    assert client.engine.driver == "psycopg"
    given = client.engine.dialect.create_connect_args(client.engine.url)[1]
    assert {name: str(given.get(name)) for name in expected} == {
        name: str(value) for name, value in expected.items()
    }
    assert not {"ssl", "timeout", "prepared_statement_cache_size"} & set(given)
    assert psycopg_url(make_url(client.engine.url)) == client.engine.url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app",
        f"postgresql://u:{SECRET}@h/db",
        f"postgresql://u:{SECRET}@h1:x,h2/db",
        f"mysql://u:{QUOTED}@h/db",
        f"mysql://u:{QUOTED}@h1,h2/db",
        f"password={SECRET} host='h",
        f"password={SECRET} port=x",
        f"password={SECRET} nonsense=1",
        "sqlite:///app.db",
        "postgresql://h1:1,h2:x/db",
    ],
)
def test_what_is_none_is_refused_without_being_repeated(url: str) -> None:
    """What is no URL of a PostgreSQL is refused, and its password stands in no error."""
    with pytest.raises(UnsupportedDatabase) as raised:
        Client.from_url(url)
    shown = f"{raised.value!r} {raised.value} {raised.value.__context__!r}"
    if raised.value.__suppress_context__:
        shown = f"{raised.value!r} {raised.value}"
    assert "hid" not in shown


@pytest.mark.parametrize("url", [None, 5, b"postgresql://h/db"])
def test_what_is_no_text_is_refused(url: Any) -> None:
    """None, as of a variable that is not set, is refused as other addresses are."""
    with pytest.raises(UnsupportedDatabase, match="expected the URL of a PostgreSQL"):
        Client.from_url(url)

"""Convert the usual forms of a PostgreSQL URL to SQLAlchemy's URL for psycopg 3."""

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from riverrun.errors import UnsupportedDatabase

_EXPECTED = "the URL of a PostgreSQL, such as postgresql://user@host/database"


_URL = re.compile(r"(?s)(postgres(?:ql)?(?:\+\w+)?://)((?:[^/?]*@)?)([^/?@]*)(.*)")


_ASYNCPG = frozenset(
    {"prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size"}
    | {"async_fallback", "command_timeout", "max_cached_statement_lifetime"}
)
"""Parameters of a URL's query that only asyncpg has."""


def psycopg_url(given: str | URL) -> URL:
    """Return SQLAlchemy's URL for psycopg 3 for a PostgreSQL URL in any of its usual forms.

    Platforms provide `postgres://` and `postgresql://`. An application's URL names its driver.
    libpq accepts several hosts, `postgresql://user@a:1,b:2/database`, and keywords,
    `host=a dbname=database`.

    Raises:
        UnsupportedDatabase: If it is none of these. The error does not repeat the URL, which may
            hold a password.
    """
    value: object = given
    if not isinstance(value, str | URL):
        what = "None as a database URL" if value is None else f"a {type(value).__name__}"
        raise UnsupportedDatabase(what, _EXPECTED)
    try:
        url = _parsed(given)
    except (ArgumentError, ValueError, psycopg.Error):
        # ValueError: the port is not a number, as when a password contains a '/' or '@'.
        raise UnsupportedDatabase("a database URL that cannot be read", _EXPECTED) from None
    backend, _, driver = url.drivername.partition("+")
    if backend not in {"postgres", "postgresql"}:
        raise UnsupportedDatabase(url.drivername, _EXPECTED)
    if driver == "asyncpg":
        url = _without_asyncpg(url)
    return url.set(drivername="postgresql+psycopg")


def _parsed(given: str | URL) -> URL:
    if isinstance(given, URL):
        return given
    if "://" not in given and "=" in given:
        return _of_keywords(conninfo_to_dict(given))
    found = _URL.fullmatch(given)
    if found is None or "," not in found[3]:
        return make_url(given)
    scheme, user, hosts, rest = found.groups()
    pairs = [_host_and_port(host) for host in hosts.split(",")]
    return _at(make_url(f"{scheme}{user}{rest}"), *map(list, zip(*pairs, strict=True)))


def _host_and_port(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", text)
    if found is None:
        raise ValueError
    return found[1].strip("[]"), found[2] or ""


def _of_keywords(keywords: dict[str, Any]) -> URL:
    taken = {name: keywords.pop(name, None) for name in ("user", "password", "dbname")}
    hosts = (keywords.pop("host", None) or "").split(",")
    ports = str(keywords.pop("port", None) or "").split(",")
    if not all(port.isdigit() or not port for port in ports):
        raise ValueError
    url = URL.create(
        "postgresql", taken["user"], taken["password"], database=taken["dbname"], query=keywords
    )
    return _at(url, hosts, ports * len(hosts) if len(ports) == 1 else ports)


def _at(url: URL, hosts: list[str], ports: list[str]) -> URL:
    """Return `url` with hosts and ports in its query, where SQLAlchemy accepts several."""
    query = {"host": ",".join(hosts), "port": ",".join(ports)}
    return url.update_query_dict({name: value for name, value in query.items() if value.strip(",")})


def _without_asyncpg(url: URL) -> URL:
    """Return `url` with the asyncpg parameters of its query converted to libpq's, or removed."""
    query = {name: value for name, value in url.query.items() if name not in _ASYNCPG}
    if "timeout" in query:
        query["connect_timeout"] = query.pop("timeout")
    if "ssl" in query:
        ssl = str(query.pop("ssl")).lower()
        modes = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
        query["sslmode"] = modes.get(ssl, ssl)
    return url.set(query=query)

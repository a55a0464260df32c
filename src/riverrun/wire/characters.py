"""Escapes for characters in JSON text that a database's encoding cannot hold."""

import codecs
import json
import re
from functools import lru_cache
from typing import Any

import psycopg
from sqlalchemy import Connection

UTF8 = ("utf-8",)


ASCII = ("ascii",)


# An escaped NUL, but not an escaped backslash followed by the text u0000.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


def storable(text: str, encodings: tuple[str, ...]) -> str:
    r"""Return JSON `text` with each character that one of `encodings` lacks escaped, as \\u20ac.

    Args:
        text: JSON text whose characters beyond ASCII are not escaped.
        encodings: Python's names of the encodings that must hold the text. NUL and halves of
            surrogate pairs, which jsonb never holds, are escaped, too.
    """
    if "\\u0000" in text:
        text = _NUL.sub(r"\1\\\\u0000", text)
    if not text.isascii():
        for encoding in encodings:
            text = text.encode(encoding, "riverrun.json").decode(encoding)
    return text


def escaped(text: str) -> str:
    """Return JSON `text` with all characters beyond ASCII escaped. Its value stays the same."""
    return (
        text
        if text.isascii()
        else _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    )


def encodings_of(connection: Connection, *, own: bool = False) -> tuple[str, ...]:
    """Return the encodings that text passes on its way to the tables; the server's comes last.

    Args:
        connection: A connection of any driver for PostgreSQL.
        own: Whether the transaction is riverrun's own, which talks to the server in UTF-8.
    """
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        status = driver.pgconn.parameter_status
        names = status(b"client_encoding"), status(b"server_encoding"), own
        if found := _found.get(names):
            return found
        client, server = driver.info.encoding, driver.info.parameter_status("server_encoding")
        found = _found[names] = _encodings(UTF8[0] if own else client, server or "UTF8")
        return found
    if hasattr(driver, "get_parameter_status"):  # psycopg2
        client, server = driver.encoding, driver.get_parameter_status("server_encoding")
    elif hasattr(driver, "get_settings"):  # asyncpg, which talks to the server in UTF-8
        client, server = UTF8[0], driver.get_settings().server_encoding
    else:
        return UTF8
    return _encodings(UTF8[0] if own else client, server or "UTF8")


_found: dict[tuple[bytes | None, bytes | None, bool], tuple[str, ...]] = {}
"""Of psycopg's connections, by libpq's names: its own `info` takes five times as long."""


@lru_cache
def _encodings(client: str, server: str) -> tuple[str, ...]:
    sent = _codec(client)
    # A database in SQL_ASCII stores any bytes.
    stored = sent if server == "SQL_ASCII" else _codec(server)
    return (sent, stored) if stored != sent else (stored,)


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name.replace("WIN", "cp")).name
    except LookupError:  # an encoding that Python lacks, such as EUC_TW
        return "ascii"


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # Python's escape, with its backslash doubled, because the text is JSON.
    part = error.object[error.start : error.end]
    return part.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\"), error.end


codecs.register_error("riverrun.json", _escape)

"""Characters: what stands in JSON text for those that a database cannot hold."""

import codecs
import re
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy import Connection, Pool

UTF8 = ("utf-8",)
ASCII = ("ascii",)

# An escaped NUL, not a backslash followed by the text u0000.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")

_known: "WeakKeyDictionary[Pool, tuple[str, ...]]" = WeakKeyDictionary()


def storable(text: str, encodings: tuple[str, ...]) -> str:
    r"""Return JSON `text` with each character that one of `encodings` lacks escaped, as \\u20ac.

    Args:
        text: JSON text whose characters beyond ASCII are not escaped.
        encodings: Python's names of the encodings that must hold it. NUL and halves of surrogate
            pairs, which jsonb never holds, are escaped too.
    """
    if "\\u0000" in text:
        text = _NUL.sub(r"\1\\\\u0000", text)
    if not text.isascii():
        for encoding in encodings:
            text = text.encode(encoding, "riverrun.json").decode(encoding)
    return text


def encodings_of(connection: Connection) -> tuple[str, ...]:
    """Return the encodings in which text reaches the tables behind `connection`."""
    pool = connection.engine.pool
    if (known := _known.get(pool)) is None:
        driver = connection.connection.driver_connection
        # asyncpg talks to the server in UTF-8, and that is the server's own almost everywhere.
        known = _encodings(driver.info) if isinstance(driver, psycopg.Connection) else UTF8
        _known[pool] = known
    return known


def _encodings(info: psycopg.ConnectionInfo) -> tuple[str, ...]:
    server = info.parameter_status("server_encoding") or "UTF8"
    # SQL_ASCII takes any bytes.
    name = info.encoding if server == "SQL_ASCII" else server.replace("WIN", "cp")
    try:
        found = codecs.lookup(name).name
    except LookupError:  # one that Python does not know, such as EUC_TW
        found = "ascii"
    return (info.encoding, found) if found != info.encoding else (found,)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # Escaped as Python does it, and the backslash once more, for JSON.
    part = error.object[error.start : error.end]
    return part.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\"), error.end


codecs.register_error("riverrun.json", _escape)

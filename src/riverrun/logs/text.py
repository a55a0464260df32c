"""Make text that comes from a row, an application or a server safe for a log line."""

from typing import Any

import psycopg
from psycopg.errors import lookup
from sqlalchemy.exc import SQLAlchemyError

_CUT = 200


# Classes of SQLSTATE whose messages name objects, rights and servers, and never a row's values:
# connection, authorization, no such database, no such schema, syntax or access, resources, limits,
# object state, operator's intervention, system.
_MESSAGE_IS_SAFE = ("08", "28", "3D", "3F", "42", "53", "54", "55", "57", "58")


# PL/pgSQL's RAISE, as PostgreSQL reports the place of an error: the message is the application's,
# under any SQLSTATE that it likes. Source: PostgreSQL 17, pl_exec.c.
_RAISE = "exec_stmt_raise"


def printable(value: object, limit: int = _CUT) -> str:
    """Return `value` as one line of text, cut at `limit`, with control characters escaped.

    A newline in a job's kind must not forge a second log line, and an escape sequence must not
    reach a terminal.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) > limit:
        text = text[:limit] + "..."
    return text if text.isprintable() else "".join(map(_escaped, text))


def printable_lines(text: str) -> str:
    """Return `text` with all control characters escaped, except line breaks and tabs."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if char in "\n\t" else _escaped(char) for char in text)


def reason(error: BaseException) -> str:
    """Return why a statement or a connection failed, without values of rows or parameters.

    For a database's error that is its class and its SQLSTATE. The first line of its message is
    added only if that can name objects, rights and servers alone; otherwise the table and the
    constraint are, or the SQLSTATE's name. Any other exception gives only its class, because its
    text may hold args.
    """
    orig: Any = getattr(error, "orig", None) or error
    name = type(error).__name__
    state: str | None = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
    if state is None and not isinstance(error, SQLAlchemyError | psycopg.Error):
        return f"{name}: {printable(error)}" if isinstance(error, OSError) else name
    if state is None:
        # An error of the driver, such as a failed connection, or of SQLAlchemy.
        if name not in {"OperationalError", "InterfaceError", "TimeoutError"}:
            return name
        return f"{name}: {_first_line(orig)}"
    text = f"{name} {state}"
    diag: Any = getattr(orig, "diag", None)
    if state.startswith(_MESSAGE_IS_SAFE) and getattr(diag, "source_function", None) != _RAISE:
        return f"{text}: {_first_line(getattr(diag, 'message_primary', None) or orig)}"
    places = {
        "table": getattr(diag, "table_name", None),
        "constraint": getattr(diag, "constraint_name", None),
    }
    if named := ", ".join(f"{word} {printable(place)}" for word, place in places.items() if place):
        return f"{text} ({named})"
    try:
        return f"{text} {lookup(state).__name__}"
    except KeyError:  # the application's own SQLSTATE
        return text


def _first_line(value: object) -> str:
    lines = str(value).strip().splitlines()
    return printable(lines[0] if lines else "")


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")

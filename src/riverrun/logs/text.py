"""Text for log lines: what a row, an application or a server wrote, made safe to print."""

from typing import Any

import psycopg
from sqlalchemy.exc import SQLAlchemyError

_CUT = 200


# Classes of SQLSTATE whose messages name objects, rights and servers, and never a row's values:
# connection, authorization, no such database, no such schema, syntax or access, resources, limits,
# object state, operator's intervention, system.
_MESSAGE_IS_SAFE = ("08", "28", "3D", "3F", "42", "53", "54", "55", "57", "58")


def printable(value: object, limit: int = _CUT) -> str:
    """Return `value` as text on one line, control characters escaped, cut after `limit` characters.

    A newline in a job's kind must not forge a second log line, nor an escape sequence reach a
    terminal.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) > limit:
        text = text[:limit] + "..."
    return text if text.isprintable() else "".join(map(_escaped, text))


def printable_lines(text: str) -> str:
    """Return `text` with its line breaks and tabs kept, all other control characters escaped."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(each if each in "\n\t" else _escaped(each) for each in text)


def reason(error: BaseException) -> str:
    """Return why a statement or a connection failed, without a row's values or its parameters.

    A database's error is its class, its SQLSTATE and, where that names only objects and rights, its
    first line; of an error with values in its text, the table and the constraint. Anything else is
    its class alone: an exception's text may hold args.
    """
    orig: Any = getattr(error, "orig", None) or error
    name = type(error).__name__
    state: str | None = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
    if state is None and not isinstance(error, SQLAlchemyError | psycopg.Error):
        return f"{name}: {printable(error)}" if isinstance(error, OSError) else name
    if state is None:
        # The driver's own, as of a connection that cannot be made, or SQLAlchemy's.
        if name not in {"OperationalError", "InterfaceError", "TimeoutError"}:
            return name
        return f"{name}: {_first_line(orig)}"
    text = f"{name} {state}"
    diag: Any = getattr(orig, "diag", None)
    if state.startswith(_MESSAGE_IS_SAFE):
        return f"{text}: {_first_line(getattr(diag, 'message_primary', None) or orig)}"
    places = {
        "table": getattr(diag, "table_name", None),
        "constraint": getattr(diag, "constraint_name", None),
    }
    named = ", ".join(f"{word} {printable(place)}" for word, place in places.items() if place)
    return f"{text} ({named})" if named else text


def _first_line(value: object) -> str:
    lines = str(value).strip().splitlines()
    return printable(lines[0] if lines else "")


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")

"""SQL expressions for the texts in JSON: of strings as Go writes them, of times as Python does."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Text,
    case,
    cast,
    func,
    literal,
    literal_column,
)

_ESCAPED = "<>&\u2028\u2029"
"""The characters that Go escapes in JSON text and PostgreSQL does not."""


def go_text(held: ColumnElement[Any], encoding: str) -> ColumnElement[str]:
    """Return the JSON of a text as Go writes it."""
    text: ColumnElement[Any] = cast(func.to_json(held), Text)
    for char in _ESCAPED:
        try:
            char.encode(encoding)
        except UnicodeEncodeError:
            continue  # no value in this encoding has it
        text = func.replace(text, char, f"\\u{ord(char):04x}")
    return text


def quoted(text: ColumnElement[Any]) -> ColumnElement[str]:
    """Return a text that needs no escapes as a JSON string."""
    return literal('"', Text).concat(text).concat(literal('"', Text))


def in_range(held: ColumnElement[Any], text: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return `text`, or fail for a date or time that Python cannot represent."""
    year = func.date_part("year", held)
    fits = func.isfinite(held).op("AND")(year.between(1, 9999))
    return case(
        (held.is_(None), None),
        (fits, text),
        else_=refusal("a time that Python does not have", held),
    )


def refusal(problem: str, held: Any) -> ColumnElement[str]:
    """Return a text whose evaluation fails with `problem`.

    Args:
        problem: What is wrong, for the error's text.
        held: An expression that depends on a row: PostgreSQL would evaluate a constant when it
            plans the statement.
    """
    message = func.concat(f"{REFUSED}{problem}", func.left(cast(held, Text), 0))
    return cast(cast(message, Integer), Text)


REFUSED = "riverrun: "
"""The beginning of the text of such an error."""


def datetime_text(
    column: ColumnElement[Any], sql_type: DateTime, *, pydantic: bool
) -> ColumnElement[Any]:
    """Return a date and time as Python writes it, or fail if Python cannot represent it."""
    held = cast(column, DateTime(timezone=sql_type.timezone))
    local = func.timezone("UTC", held) if sql_type.timezone else held
    zone = ("Z" if pydantic else "+00:00") if sql_type.timezone else ""
    return in_range(
        local,
        case(
            (func.date_trunc("second", local) == local, _stamp(local, f'HH24:MI:SS"{zone}"')),
            else_=_stamp(local, f'HH24:MI:SS.US"{zone}"'),
        ),
    )


def _stamp(held: ColumnElement[Any], clock: str) -> ColumnElement[str]:
    return func.to_char(held, f'YYYY-MM-DD"T"{clock}')


def time_text(held: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a time of day as Python writes it, or fail if Python cannot represent it."""
    whole = func.date_trunc("second", held) == held
    text = func.to_char(held, case((whole, "HH24:MI:SS"), else_="HH24:MI:SS.US"))
    return case(
        (held.is_(None), None),
        (held < literal_column("time '24:00'"), text),
        else_=refusal("a time of day that Python does not have", held),
    )

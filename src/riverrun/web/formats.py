"""The data of a page as JSON and as CSV."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import attrs

VERSION = 1
"""The version of the JSON of all pages. A field may be added; one is never renamed or removed."""

_CHANGING = frozenset({"age_s", "silent_s", "asked_at"})
"""Fields that change with each look although nothing happened."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters at the beginning of a cell by which a spreadsheet recognizes a formula."""


DEPTH_MAX = 100
"""The depth below which values are shown as text, because they nest deeper than Python can go."""


def plain(value: object, depth: int = 0) -> Any:
    """Return a value as JSON can hold it: objects of attrs, times, enums, bytes and sets, too."""
    if depth > DEPTH_MAX:
        return str(value) if isinstance(value, str | int | float | None) else "..."
    depth += 1
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Enum():
            return value.value
        case str():
            return value
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Mapping():
            return {str(plain(key)): plain(item, depth) for key, item in value.items()}
        case set() | frozenset():
            return sorted((plain(item, depth) for item in value), key=str)
        case list() | tuple():
            return [plain(item, depth) for item in value]
    row: Any = type(value)
    if attrs.has(row):
        names = [field.name for field in attrs.fields(row)]
        return {name: plain(getattr(value, name), depth) for name in names}
    return str(value)


def to_json(name: str, data: object) -> bytes:
    """Return the data of the page `name` as JSON."""
    document = {"version": VERSION, "page": name, "data": plain(data)}
    return json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def etag_of(*parts: object) -> str:
    """Return a version of data, the same for as long as nothing but ages has changed."""
    text = json.dumps(_still(plain(parts)), ensure_ascii=True)
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def _still(value: Any) -> Any:
    match value:
        case dict():
            return {key: _still(item) for key, item in value.items() if key not in _CHANGING}
        case list():
            return [_still(item) for item in value]
    return value


def to_csv(columns: Sequence[str], rows: Iterable[object]) -> bytes:
    """Return rows as CSV in which a spreadsheet takes no cell for a formula.

    Args:
        columns: The names of the columns, which are attributes or keys of each row.
        rows: The rows.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        values = row if isinstance(row, Mapping) else None
        writer.writerow(
            _cell(getattr(row, name) if values is None else values[name]) for name in columns
        )
    return out.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: object) -> str:
    simple = plain(value)
    match simple:
        case None:
            return ""
        case bool():
            return str(simple).lower()
        case int() | float():
            return str(simple)
        case str():
            text = simple.replace("\x00", "\\x00")
        case _:
            text = json.dumps(simple, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text

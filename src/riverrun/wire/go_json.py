"""JSON text as Go's encoder writes it, so that a value gives the same bytes in both languages.

Source: Go 1.26, encoding/json; River 0.51, internal/dbunique.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    **{chr(code): f"\\u{code:04x}" for code in range(0x20) if chr(code) not in "\b\f\n\r\t"},
}


_ESCAPED = re.compile("[" + re.escape("".join(_ESCAPES)) + "]")


_PLAIN_KEY = re.compile(r'[^\x00-\x1f"\\\x80-\U0010ffff]*')


def encode(value: object) -> str:
    """Return `value` as Go's `json.Marshal` would write it.

    Raises:
        TypeError: If `value` holds a type that JSON does not have.
    """
    match value:
        case str():
            return '"' + _ESCAPED.sub(lambda match: _ESCAPES[match[0]], value) + '"'
        case None | bool():
            return json.dumps(value)
        case float():
            return _float(value)
        case int():
            return str(int(value))
        case Mapping():
            return "{" + ",".join(f"{encode(k)}:{encode(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(encode, value)) + "]"
    raise TypeError(f"JSON has no type for a {type(value).__name__}")


def sorted_keys(value: Any) -> Any:
    """Return `value` with the keys of each object in the order of their bytes, as in Go's maps."""
    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda item: item[0].encode())
        return {key: sorted_keys(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [sorted_keys(item) for item in value]
    return value


def time(value: datetime) -> str:
    """Return an aware time as Go writes it: RFC 3339 in UTC, without trailing zeros."""
    text = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").zfill(26)
    return text.rstrip("0").rstrip(".") + "Z"


def top_level_key(key: str) -> str:
    """Return a key of the outermost object as River writes it in the input of a unique key.

    There River does not escape ASCII keys, not even `<`, `>` and `&` (River 0.51,
    dbunique.appendJSONKey).
    """
    # An f-string would show the name of a member of a str Enum, not its value.
    return '"' + key + '"' if _PLAIN_KEY.fullmatch(key) else encode(key)


def sorted_object(value: Mapping[str, Any]) -> str:
    """Return `value` as JSON text, with its outermost keys in the order of their bytes."""
    keys = sorted(value, key=lambda key: key.encode())
    return "{" + ",".join(f"{top_level_key(key)}:{encode(value[key])}" for key in keys) + "}"


def _float(value: float) -> str:
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    digits, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = digits.partition(".")
    # The value is 0.STRIPPED times ten to the power of `point`.
    point = len(whole) + int(exponent or 0)
    stripped = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(stripped)
    stripped = stripped.rstrip("0")
    sign = "-" if value < 0 else ""
    if 1e-6 <= abs(value) < 1e21:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{stripped}"
        if point >= len(stripped):
            return f"{sign}{stripped}{'0' * (point - len(stripped))}"
        return f"{sign}{stripped[:point]}.{stripped[point:]}"
    mantissa = stripped[0] + (f".{stripped[1:]}" if len(stripped) > 1 else "")
    power = point - 1
    # Go writes e-9 where Python writes e-09.
    return f"{sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power)}"

"""Checks whether PostgreSQL's jsonb can hold a value, and its JSON text."""

import json
import math
import sys
from collections.abc import Mapping
from json import encoder

from riverrun.errors import InvalidOption

NESTING_MAX = 500
"""Levels of nesting that are safe however deep the caller's stack is. Python's own limit is about
1,000 frames."""


MAX_METADATA_BYTES = 32 * 1024 * 1024
"""Largest metadata of a job, in bytes of JSON, that one insert, update or attempt may set. An
attempt may also record an output of the same size, and its log."""


def metadata_text(metadata: object, most: int = MAX_METADATA_BYTES) -> str:
    """Return `metadata` as JSON text if a job can hold it.

    Args:
        metadata: A mapping.
        most: Maximum size in bytes of JSON.

    Raises:
        InvalidOption: If it is not a mapping, JSON cannot hold it, or it is too large.
    """
    problem = json_problem(metadata) if isinstance(metadata, Mapping) else "it is not a mapping"
    if problem:
        raise InvalidOption("metadata", metadata, f"a JSON object; {problem}")
    text = json_text(metadata)
    if (size := json_size(text)) > most:
        limit = f"at most {most:,} bytes of JSON; keep a reference to it"
        raise InvalidOption("metadata", f"{size:,} bytes", limit)
    return text


def json_size(text: str) -> int:
    """Return the size of JSON text in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


_SMALL_INT_BITS = 1024
"""An int of so few bits is within every limit of `sys.set_int_max_str_digits`."""


def json_problem(value: object, path: str = "$") -> str | None:
    """Return what PostgreSQL's jsonb cannot hold in `value`, and where it is; None if nothing."""
    try:
        return None if _is_plain(value) else _json_problem(value, path)
    except RecursionError:
        return f"{path} holds itself or nests too deeply; keep it below {NESTING_MAX} levels"


def _is_plain(value: object) -> bool:
    """Return True if jsonb can surely hold `value`; False if `_json_problem` must decide."""
    # It compares exact types and tracks no path, because it runs for every inserted job.
    kind = type(value)
    if kind is str:
        return _is_plain_text(value)  # type: ignore[arg-type]
    if kind is int:
        return value.bit_length() < _SMALL_INT_BITS  # type: ignore[attr-defined,no-any-return]
    if kind is bool or value is None:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not _is_plain_text(key):
                return False
            # Most items are text: save the recursive call.
            if not (_is_plain_text(item) if type(item) is str else _is_plain(item)):
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))  # type: ignore[call-overload]
    return False


def _is_plain_text(value: str) -> bool:
    if "\x00" in value:
        return False
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


def _json_problem(value: object, path: str) -> str | None:
    match value:
        case str():
            if "\x00" in value:
                return f"{path} holds a NUL character, which jsonb cannot store; remove it"
            if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
                return f"{path} holds half of a surrogate pair; decode the text properly first"
        case None | bool():
            return None
        case int():
            try:
                int.__repr__(value)
            except ValueError:  # the reader has the same limit
                digits = sys.get_int_max_str_digits()
                return f"{path} is an int of more than {digits:,} digits; use a string or bytes"
        case float():
            if not math.isfinite(value):
                return f"{path} is {value}, which JSON does not know; use None or a string"
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    return f"{path} has the key {key!r}; keys of JSON objects are strings"
                problem = _json_problem(key, f"key {key!r} of {path}") or _json_problem(
                    item, f"{path}.{key}"
                )
                if problem:
                    return problem
        case list() | tuple():
            for index, item in enumerate(value):
                if problem := _json_problem(item, f"{path}[{index}]"):
                    return problem
        case _:
            return f"{path} is of type {type(value).__name__}, which JSON does not know"
    return None


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


# JSONEncoder.encode() makes a C encoder in each call, which takes longer than using it. This one is
# made once. Only CPython has it.
_make = getattr(encoder, "c_make_encoder", None)


_encode = _make and _make(
    None, _ENCODER.default, encoder.encode_basestring, None, ":", ",", False, False, True
)


def json_text(value: object) -> str:
    """Return `value`, in which `json_problem` found nothing, as compact JSON text."""
    return _ENCODER.encode(value) if _encode is None else "".join(_encode(value, 0))


_encode_finite = _make and _make(
    None, _ENCODER.default, encoder.encode_basestring, None, ":", ",", False, False, False
)


def quick_text(value: object) -> str | None:
    """Return the JSON text of `value` if the text shows that jsonb holds it; None if it does not.

    This is faster than looking for a problem in the value first.

    Args:
        value: None, strings, numbers, lists, and dicts with strings as their keys; no subclasses.
    """
    if _encode_finite is None:
        return None
    try:
        text = "".join(_encode_finite(value, 0))
        if not text.isascii():
            text.encode()
    except ValueError:  # a number that is not finite, or half of a surrogate pair
        return None
    return None if "\\u0000" in text else text

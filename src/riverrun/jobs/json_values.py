"""What JSON, and PostgreSQL's jsonb, can hold; and a value as its text."""

import json
import math
from collections.abc import Mapping
from json import encoder

from riverrun.errors import InvalidOption

NESTING_MAX = 500
"""Levels of lists and objects that JSON may have whatever calls it; Python stops at some 1,000."""


MAX_METADATA_BYTES = 32 * 1024 * 1024
"""Largest metadata of a job, as JSON, that one insert, update or attempt may set; beside it an
attempt may record an output as large, and its log."""


def metadata_text(metadata: object, most: int = MAX_METADATA_BYTES) -> str:
    """Return `metadata` as JSON text if a job can keep it.

    Args:
        metadata: A mapping.
        most: The most bytes that it may have.

    Raises:
        InvalidOption: If it is no mapping, JSON cannot hold it, or it is larger.
    """
    problem = json_problem(metadata) if isinstance(metadata, Mapping) else "it is no mapping"
    if problem:
        raise InvalidOption("metadata", metadata, f"a JSON object; {problem}")
    text = json_text(metadata)
    if (size := json_size(text)) > most:
        limit = f"at most {most:,} bytes of JSON; keep a reference to it"
        raise InvalidOption("metadata", f"{size:,} bytes", limit)
    return text


def json_size(text: str) -> int:
    """Return how many bytes JSON text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def json_problem(value: object, path: str = "$") -> str | None:
    """Return what in `value` PostgreSQL's jsonb cannot hold, and where; None if nothing."""
    try:
        return None if _is_plain(value) else _json_problem(value, path)
    except RecursionError:
        return f"{path} holds itself or nests too deeply; keep it below {NESTING_MAX} levels"


def _is_plain(value: object) -> bool:
    """Return whether jsonb can hold `value`; False where that takes a closer look."""
    # By exact type, and without the path: this is done for every job that is inserted.
    kind = type(value)
    if kind is str:
        return _is_plain_text(value)  # type: ignore[arg-type]
    if kind is int or kind is bool or value is None:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not _is_plain_text(key):
                return False
            # Most are text: no call in between.
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
        case None | bool() | int():
            return None
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


# What its encode() makes anew for each call, which takes longer than to use it. CPython's alone.
_make = getattr(encoder, "c_make_encoder", None)


_encode = _make and _make(
    None, _ENCODER.default, encoder.encode_basestring, None, ":", ",", False, False, True
)


def json_text(value: object) -> str:
    """Return `value`, already free of problems, as compact JSON text."""
    return _ENCODER.encode(value) if _encode is None else "".join(_encode(value, 0))

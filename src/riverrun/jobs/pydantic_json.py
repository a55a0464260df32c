"""Encodes objects of pydantic's classes as JSON, and decodes them."""

from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, partial
from typing import Any, cast

from riverrun.jobs.json_values import json_text


def pydantic_forms(value: object) -> list[Callable[[], Any]]:
    """Return the ways to encode a pydantic object as JSON, the usual one first.

    The others are for objects that do not survive the usual way: those with computed fields in a
    model with `extra="forbid"`, with `Json` fields, or with some aliases.
    """
    dump = pydantic_dump(value)
    return [
        lambda: dump(mode="json", warnings=False),
        lambda: dump(mode="json", warnings=False, round_trip=True),
        lambda: dump(mode="json", warnings=False, round_trip=True, by_alias=False),
        lambda: dump(mode="json", warnings=False, round_trip=True, by_alias=True),
    ]


def pydantic_dump(value: object) -> Callable[..., Any]:
    """Return the function that encodes a pydantic object: a model's own method, or an adapter's."""
    if hasattr(value, "model_dump"):
        return cast("Callable[..., Any]", value.model_dump)
    return partial(_adapter(cast("Hashable", type(value))).dump_python, value)


def from_pydantic_json(encoded: Any, cls: Any) -> Any:
    """Return JSON as an object of the pydantic class `cls`."""
    text = json_text(encoded)
    validate = getattr(cls, "model_validate_json", None) or _adapter(cls).validate_json
    # Accept names, as riverrun writes them, and aliases, as other languages write them.
    return validate(text, **_by_both())


@lru_cache(maxsize=1)
def _by_both() -> Mapping[str, bool]:
    import pydantic

    version = tuple(int(part) for part in pydantic.VERSION.split(".")[:2])
    return {"by_alias": True, "by_name": True} if version >= (2, 11) else {}


@lru_cache(maxsize=1024)
def _adapter(cls: Hashable) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cast("Any", cls))

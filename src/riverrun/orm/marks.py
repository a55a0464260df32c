"""Marks: how the metadata of jobs names the row of a mapped object, such as `orders:5`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Mapper

from riverrun.jobs.json_values import json_text
from riverrun.orm.object_keys import keys_of, mapper_of


def base_of(entity: type[Any]) -> Mapper[Any]:
    """Return the mapper of the class in whose table each object of `entity` has a row."""
    mapper = mapper_of(entity)
    assert mapper is not None  # noqa: S101  a reference is to a mapped class
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def mark_of(base: Mapper[Any], identity: Sequence[Any]) -> str:
    """Return the mark of a row.

    Args:
        base: What `base_of` returned, so that all subclasses have the same mark.
        identity: The row's primary key.

    Raises:
        InvalidRef: If JSON cannot hold the key.
    """
    return f"{base.local_table}:{json_text(keys_of(base).write(identity))}"

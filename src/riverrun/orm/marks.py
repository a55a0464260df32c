"""Marks: how the metadata of jobs names the row of a mapped object, such as `orders:5`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy.orm import Mapper

from riverrun.jobs.json_values import json_text
from riverrun.orm.object_keys import keys_of

Schemas: TypeAlias = Mapping[str | None, str | None]
"""What `schema_translate_map` of SQLAlchemy is."""

NO_SCHEMAS: Schemas = {}


def table_of(base: Mapper[Any], schemas: Schemas) -> str:
    """Return the name of a class's table, in the schema where statements find it."""
    table: Any = base.local_table
    schema = getattr(table, "schema", None)
    if schema not in schemas:
        return str(table)
    found = schemas[schema]
    return f"{found}.{table.name}" if found else str(table.name)


def mark_of(base: Mapper[Any], identity: Sequence[Any], schemas: Schemas = NO_SCHEMAS) -> str:
    """Return the mark of a row.

    Args:
        base: What `base_of` returned, so that all subclasses have the same mark.
        identity: The row's primary key.
        schemas: The `schema_translate_map` by which statements find the row.

    Raises:
        InvalidRef: If JSON cannot hold the key.
    """
    return f"{table_of(base, schemas)}:{json_text(keys_of(base).write(identity))}"

"""Names of our tables and other objects, so that a host's autogenerate can leave them alone."""

from collections.abc import Mapping
from typing import Any

OWN_TABLES = frozenset(
    {
        "river_client",
        "river_client_queue",
        "river_job",
        "river_leader",
        "river_migration",
        "river_notification",
        "river_queue",
        "riverrun_action",
        "riverrun_client",
        "riverrun_periodic",
        "riverrun_sample",
    }
)
"""The tables of River at any version, and those of riverrun."""

OWN_OBJECTS = OWN_TABLES | {
    "river_job_notify",
    "river_job_state",
    "river_job_state_in_bitmask",
    "river_notify",
}
"""Our tables, types, functions and triggers; other autogenerate plugins compare them all."""


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:
    """Return False for our own objects: `context.configure(..., include_name=include_name)`.

    Only hosts on Alembic before 1.18 need it; later releases load our plugin.

    Args:
        name: The name of an object in the database.
        type_: The type of object: "table", or "enum", "function" and so on from other plugins.
        parent_names: The object's schema and table; ignored.
    """
    del parent_names
    match type_:
        case "table":
            return name not in OWN_TABLES
        case "schema" | "column" | "index" | "unique_constraint" | "foreign_key_constraint":
            return True
    # Some plugins pass `schema.name(arguments)`.
    bare = (name or "").partition("(")[0].rpartition(".")[2].strip('"')
    # Of `"a ""b"" c".name`, alembic-postgresql-enum takes off the quotes and the last letter.
    cut = type_ == "enum" and '"' in (name or "") and f"{bare}e" in OWN_OBJECTS
    return bare not in OWN_OBJECTS and not cut

"""Which tables and other objects are ours, for hosts whose autogenerate compares the database."""

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
        "riverrun_client",
        "riverrun_periodic",
    }
)
"""Tables of River's at any version, and of riverrun's."""

OWN_OBJECTS = OWN_TABLES | {
    "river_job_notify",
    "river_job_state",
    "river_job_state_in_bitmask",
    "river_notify",
}
"""The same, and types, functions and triggers, which other plugins for autogenerate look at."""


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:
    """Return False for what is ours: `context.configure(..., include_name=include_name)`.

    Only hosts on Alembic before 1.18 need it; later ones have our plugin.

    Args:
        name: What something in the database is called.
        type_: What it is, such as "table", or "enum" and "function" where other plugins ask.
        parent_names: What it belongs to; not looked at.
    """
    del parent_names
    match type_:
        case "table":
            return name not in OWN_TABLES
        case "schema" | "column" | "index" | "unique_constraint" | "foreign_key_constraint":
            return True
    # As `schema.name(arguments)` where a plugin needs more than the name.
    bare = (name or "").partition("(")[0].rpartition(".")[2].strip('"')
    return bare not in OWN_OBJECTS

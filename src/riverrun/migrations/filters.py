"""Which tables are ours, for hosts whose autogenerate compares the database with their models."""

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


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:
    """Return False for our tables: `context.configure(..., include_name=include_name)`.

    Only hosts on Alembic before 1.18 need it; later ones have our plugin.

    Args:
        name: What something in the database is called.
        type_: What it is, such as "table".
        parent_names: What it belongs to; not looked at.
    """
    del parent_names
    return not (type_ == "table" and name in OWN_TABLES)

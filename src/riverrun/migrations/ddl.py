"""What the versions share: running their DDL, and naming things in a schema.

DDL is written as text: it must equal River's in what the catalog then says, and text shows that.
"""

import re

from alembic.operations import Operations

from riverrun.errors import InvalidOption

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_TRANSACTION = "riverrun_own_transaction"
"""The context's option that says: this version's transaction holds nothing else."""

SCHEMA_MAX = 46
"""PostgreSQL's 63, less the longest topic and the dot in a channel's name. Source: River 0.51."""


def check_schema(schema: str | None) -> str | None:
    """Return `schema` if it can name the schema of River's tables.

    Raises:
        InvalidOption: If it cannot.
    """
    if schema is not None and (len(schema) > SCHEMA_MAX or not _SCHEMA.fullmatch(schema)):
        expected = f"letters, digits and underscores, no digit first, at most {SCHEMA_MAX}"
        raise InvalidOption("schema", schema, expected)
    return schema


def prefix(schema: str | None) -> str:
    """Return what stands before a name in `schema`."""
    return "" if schema is None else f'"{check_schema(schema)}".'


def run(op: Operations, schema: str | None, *statements: str) -> None:
    """Execute `statements`, in which `{s}` stands before every name of ours."""
    for statement in statements:
        # A colon before a word would be a bind; none of ours has any.
        op.execute(statement.strip().replace("{s}", prefix(schema)).replace(":", "\\:"))

"""What the versions share: running their DDL, and naming things in a schema.

DDL is written as text: it must equal River's in what the catalog then says, and text shows that.
"""

from alembic.operations import Operations

from riverrun.options import check_schema

OWN_TRANSACTION = "riverrun_own_transaction"
"""The context's option that says: this version's transaction holds nothing else."""


def prefix(schema: str | None) -> str:
    """Return what stands before a name in `schema`."""
    return "" if schema is None else f'"{check_schema(schema)}".'


def run(op: Operations, schema: str | None, *statements: str) -> None:
    """Execute `statements`, in which `{s}` stands before every name of ours."""
    for statement in statements:
        # A colon before a word would be a bind; none of ours has any.
        op.execute(statement.strip().replace("{s}", prefix(schema)).replace(":", "\\:"))

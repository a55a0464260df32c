"""What the versions share: running their DDL, and naming things in a schema.

DDL is written as text: it must equal River's in what the catalog then says, and text shows that.
"""

import re

from alembic.operations import Operations

from riverrun.jobs.checks import check_schema

OWN_TRANSACTION = "riverrun_own_transaction"
"""The context's option that says: this version's transaction holds nothing else."""


def prefix(schema: str | None) -> str:
    """Return what stands before a name in `schema`."""
    if schema is None:
        return ""
    name = check_schema(schema) or ""
    return '"' + name.replace('"', '""') + '".'


def escaped(statement: str) -> str:
    """Return `statement` for SQLAlchemy's `text`: a colon in it begins no bind."""
    return statement.replace(":", "\\:")


def run(op: Operations, schema: str | None, *statements: str) -> None:
    """Execute `statements`, in which `{s}` stands before every name of ours."""
    place = prefix(schema)
    # At the beginning of a literal, as in to_regclass('...'), a quote is doubled.
    places = {"{s}": place, "'{s}": "'" + place.replace("'", "''")}
    # A name that contains the tag would end the body that the tag quotes.
    tag = "$body$"
    while tag in place:
        tag = f"{tag[:-1]}_$"
    for statement in statements:
        # In one pass, as the schema's own name may contain `{s}`.
        named = re.sub("'?{s}", lambda found: places[found[0]], statement.replace("$body$", tag))
        op.execute(escaped(named.strip()))

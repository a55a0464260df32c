"""Helpers for the modules of the versions: running DDL, and naming objects in a schema.

DDL is written as text because its result in the catalog must equal that of River's migrations, and
text is easy to compare.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.migration import MigrationContext
from alembic.operations import Operations

from riverrun.errors import RiverrunError
from riverrun.jobs.checks import check_schema

OWN_TRANSACTION = "riverrun_own_transaction"
"""The option of Alembic's context for a version whose transaction does nothing else."""


class MigrationRefused(RiverrunError, RuntimeError):
    """A migration cannot be done as requested."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)


@contextmanager
def transaction_of_its_own(context: MigrationContext) -> Iterator[None]:
    """Commit Alembic's transaction, run the block in one of its own, and begin another.

    Alembic's `autocommit_block` changes the connection's isolation level for that, and does not
    restore it.

    Raises:
        MigrationRefused: If Alembic did not begin the open transaction, and so cannot commit it.
    """
    connection = context.connection
    assert connection is not None  # noqa: S101  a script has no transaction to leave
    # This attribute is private, but Alembic reads it from here, so we can replace the transaction.
    transaction = context._transaction
    if transaction is not None:
        transaction.commit()
    elif connection.in_transaction():
        raise MigrationRefused(
            "version 4 adds to an enum, which a transaction that goes on to use it cannot do; pass "
            "context.configure a connection on which no transaction is open"
        )
    with connection.begin():
        yield
    if transaction is not None:
        context._transaction = connection.begin()


def prefix(schema: str | None) -> str:
    """Return the quoted schema and a dot, to put before a name; "" for no schema."""
    if schema is None:
        return ""
    name = check_schema(schema) or ""
    return '"' + name.replace('"', '""') + '".'


def escaped(statement: str) -> str:
    """Return `statement` for SQLAlchemy's `text`, with colons escaped so that none is a bind."""
    return statement.replace(":", "\\:")


def run(op: Operations, schema: str | None, *statements: str) -> None:
    """Execute `statements`, which have `{s}` before each of our names for the schema's prefix."""
    place = prefix(schema)
    # At the beginning of a literal, as in to_regclass('{s}...'), quotes must be doubled.
    places = {"{s}": place, "'{s}": "'" + place.replace("'", "''")}
    # A schema's name that contains the dollar quote's tag would end the body, so vary the tag.
    tag = "$body$"
    while tag in place:
        tag = f"{tag[:-1]}_$"
    for statement in statements:
        # Replace in one pass, as the schema's own name may contain `{s}`.
        named = re.sub("'?{s}", lambda found: places[found[0]], statement.replace("$body$", tag))
        op.execute(escaped(named.strip()))

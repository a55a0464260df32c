"""What the versions share: running their DDL, and naming things in a schema.

DDL is written as text: it must equal River's in what the catalog then says, and text shows that.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.migration import MigrationContext
from alembic.operations import Operations

from riverrun.errors import RiverrunError
from riverrun.jobs.checks import check_schema

OWN_TRANSACTION = "riverrun_own_transaction"
"""The context's option that says: this version's transaction holds nothing else."""


class MigrationRefused(RiverrunError, RuntimeError):
    """A migration cannot be done as it was asked for."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)


@contextmanager
def transaction_of_its_own(context: MigrationContext) -> Iterator[None]:
    """Commit what Alembic has begun, have the block be a transaction, and begin another.

    Alembic's own `autocommit_block` does so by the connection's isolation level, which it does not
    leave as it was found.

    Raises:
        MigrationRefused: If the transaction is not Alembic's to commit.
    """
    connection = context.connection
    assert connection is not None  # noqa: S101  a script has no transaction to leave
    # It has no public name. Alembic looks for it there, so that another may take its place.
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

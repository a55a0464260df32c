"""Insert many jobs with COPY, which returns nothing about them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from riverrun.db.conflicts import again
from riverrun.db.driver import OwnCursor
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InsertIgnored
from riverrun.models import Job
from riverrun.verbs.draft import JobDraft, drafts
from riverrun.verbs.draft_values import batches, checked_now, columns_of, in_encoding
from riverrun.verbs.insert import insert_drafts, insert_rows
from riverrun.verbs.referred import check_objects
from riverrun.wire.characters import encodings_of


def insert_many_fast(
    tx: Tx,
    jobs: Iterable[object],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Insert jobs as `insert_many` does, but with COPY if the driver has it; return how many.

    If there are unique jobs, INSERT is used, because COPY fails at the first duplicate.

    Args:
        tx: The transaction, as for `insert`.
        jobs: Args, or pairs of args and InsertOpts.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        How many jobs were inserted, without duplicates.

    Raises:
        InvalidOption: If there is no job, or an option is out of range.
        InvalidArgs: As for `insert`.
    """
    drafted = drafts(jobs, now=now)

    def copy_all() -> int:
        with joined(tx, schema) as transaction:
            return copy_drafts(transaction, drafted, schema=schema, now=now)

    return again(tx, copy_all)


def copy_drafts(
    transaction: Transaction,
    drafted: Sequence[JobDraft],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Insert drafts, with COPY if that is possible, and return how many."""
    check_objects(transaction, drafted)
    drafted = in_encoding(drafted, encodings_of(transaction.connection))
    driver = transaction.connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection) or any(job.mark for job in drafted):
        if any(job.mark for job in drafted):
            return sum(
                not result.skipped_as_duplicate
                for result in insert_drafts(transaction, drafted, schema=schema, now=now)
            )
        for batch in batches(drafted):
            insert_rows(transaction, batch, schema, checked_now(now))
        return len(drafted)
    transaction.begin()
    try:
        # Jobs without a time leave out the column, so that the database sets it. A COPY has the
        # same columns for all rows, so there is one for each kind.
        for planned in (False, True):
            group = [job for job in drafted if (job.scheduled_at is not None) is planned]
            for batch in batches(group):
                place = transaction.schema_on(transaction.connection)
                _copy(driver, columns_of(batch, checked_now(now)), place)
    except psycopg.Error as error:
        raise transaction.raised(error, "COPY", {}, driver) from error
    except BaseException as error:
        transaction.interrupted(error)
        raise
    return len(drafted)


def _copy(
    driver: psycopg.Connection[Any], columns: Mapping[str, list[Any]], schema: str | None
) -> None:
    table = sql.Identifier(*([schema] if schema else []), Job.__tablename__)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    # The only character to escape for COPY's text format that can occur is the backslash, in JSON.
    texts = [
        [value.replace("\\", "\\\\") for value in values]
        if name in ("args", "metadata")
        else map(str, values)
        for name, values in columns.items()
    ]
    lines = list(map("\t".join, zip(*texts, strict=True)))
    with OwnCursor(driver) as cursor:
        with cursor.copy(statement) as copy:
            copy.write("\n".join(lines) + "\n")
        if cursor.rowcount != len(lines):
            raise InsertIgnored(len(lines), cursor.rowcount)

"""Insert many jobs by COPY, of which nothing comes back."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from riverrun.db.conflicts import again
from riverrun.db.driver import OwnCursor
from riverrun.db.transactions import Transaction, Tx, joined
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
    """Insert jobs as `insert_many` does, by COPY where the driver can, and return how many.

    Jobs with a unique mark go by INSERT: COPY fails on the first duplicate.

    Args:
        tx: Whose transaction, as for `insert`.
        jobs: Args, or pairs of args and InsertOpts.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.

    Returns:
        How many were inserted; duplicates are not.

    Raises:
        InvalidOption: If there is no job, or an option is out of range.
        InvalidArgs: As for `insert`.
    """
    ready = drafts(jobs, now=now)

    def copy_all() -> int:
        with joined(tx, schema) as transaction:
            return copy_drafts(transaction, ready, schema=schema, now=now)

    return again(tx, copy_all)


def copy_drafts(
    transaction: Transaction,
    ready: Sequence[JobDraft],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Insert what was drafted, by COPY where that is possible, and return how many."""
    check_objects(transaction, ready)
    ready = in_encoding(ready, encodings_of(transaction.connection))
    driver = transaction.connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection) or any(job.mark for job in ready):
        if any(job.mark for job in ready):
            return sum(
                not result.skipped_as_duplicate
                for result in insert_drafts(transaction, ready, schema=schema, now=now)
            )
        for batch in batches(ready):
            insert_rows(transaction, batch, schema, checked_now(now))
        return len(ready)
    transaction.begin()
    try:
        # A time left to the database is a column left out, and COPY's columns are the same for all.
        for planned in (False, True):
            group = [job for job in ready if (job.scheduled_at is not None) is planned]
            for batch in batches(group):
                _copy(driver, columns_of(batch, checked_now(now)), schema)
    except psycopg.Error as error:
        # As the same error of a statement that SQLAlchemy executes.
        told = transaction.missing(error) or DBAPIError.instance("COPY", None, error, psycopg.Error)
        raise told from error
    return len(ready)


def _copy(
    driver: psycopg.Connection[Any], columns: Mapping[str, list[Any]], schema: str | None
) -> None:
    table = sql.Identifier(*([schema] if schema else []), Job.__tablename__)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    # Of what COPY's text format escapes only JSON may hold anything: a backslash.
    texts = [
        [value.replace("\\", "\\\\") for value in values]
        if name in ("args", "metadata")
        else map(str, values)
        for name, values in columns.items()
    ]
    with OwnCursor(driver) as cursor, cursor.copy(statement) as copy:
        copy.write("\n".join(map("\t".join, zip(*texts, strict=True))) + "\n")

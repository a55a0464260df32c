"""Rebuild a bloated index while the table is in use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from riverrun.db.driver import OwnCursor
from riverrun.db.transactions import in_autocommit, joined
from riverrun.queries import notify as queries

INDEXES = (
    "river_job_args_index",
    "river_job_kind",
    "river_job_metadata_index",
    "river_job_pkey",
    "river_job_prioritized_fetching_index",
    "river_job_state_and_finalized_at_index",
    "river_job_unique_idx",
)
"""The indexes that bloat. Source: River 0.51, internal/maintenance/reindexer.go."""

# The names of the invalid indexes that REINDEX CONCURRENTLY leaves when it fails.
_LEFT = r"_cc(?:new|old)\d*$"

_DROP_S = 15.0
"""Seconds that the removal of a failed rebuild's index may take."""


def reindex(
    engine: Engine,
    name: str,
    *,
    timeout_s: float,
    schema: str | None = None,
    on_begin: Callable[[Callable[[], None]], None] = lambda _: None,
) -> bool:
    """Rebuild the index `name` while the table is in use.

    An invalid index that an earlier, failed rebuild has left is removed first.

    Args:
        engine: The engine. The statement cannot run in a transaction.
        name: The index.
        timeout_s: Seconds that a statement may take; 0 for no limit.
        schema: The schema of River's tables. Default: the search path's.
        on_begin: Called with a function that cancels the statement from another thread.

    Returns:
        Whether the index was rebuilt. It is not rebuilt if it does not exist, if it is being
        rebuilt already, or if a valid index has a name like those that REINDEX leaves, because a
        program cannot know whether that index is wanted.

    Raises:
        sqlalchemy.exc.DBAPIError, psycopg.Error: If the rebuild failed. The index that it left is
            removed.
    """
    with joined(engine) as transaction:
        place_of = {"schema": schema}
        place = transaction.execute(queries.schema_of_tables(), place_of).scalar_one()
    with in_autocommit(engine, alone=True) as driver:
        cursor = OwnCursor(driver)
        if not _is_there(cursor, place, name) or _is_rebuilt(cursor, place, name):
            return False
        on_begin(driver.cancel)
        with _timeout(cursor, timeout_s):
            try:
                _drop_left(cursor, place, name)
                if _left(cursor, place, name, valid=True):
                    return False
                command = sql.SQL("REINDEX INDEX CONCURRENTLY {}")
                cursor.execute(command.format(sql.Identifier(place, name)))
            except BaseException:
                with suppress(psycopg.Error), _timeout(cursor, _DROP_S):
                    _drop_left(cursor, place, name)
                raise
    return True


@contextmanager
def _timeout(cursor: OwnCursor, timeout_s: float) -> Iterator[None]:
    """Set the time limit for statements in the block, then restore the session's own."""
    [before] = cursor.execute("SHOW statement_timeout").fetchone() or ("0",)
    change = "SELECT set_config('statement_timeout', %s, false)"
    cursor.execute(change, (str(int(timeout_s * 1000)),))
    try:
        yield
    finally:
        cursor.execute(change, (before,))


def _is_there(cursor: OwnCursor, schema: str, name: str) -> bool:
    statement = "SELECT 1 FROM pg_indexes WHERE schemaname = %s AND indexname = %s"
    return cursor.execute(statement, (schema, name)).fetchone() is not None


def _is_rebuilt(cursor: OwnCursor, schema: str, name: str) -> bool:
    statement = (
        "SELECT 1 FROM pg_stat_progress_create_index p JOIN pg_index i ON i.indrelid = p.relid"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s"
    )
    return cursor.execute(statement, (schema, name)).fetchone() is not None


def _drop_left(cursor: OwnCursor, schema: str, name: str) -> None:
    for left in _left(cursor, schema, name, valid=False):
        drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
        cursor.execute(drop.format(sql.Identifier(schema, left)))


def _left(cursor: OwnCursor, schema: str, name: str, *, valid: bool) -> list[str]:
    statement = (
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname ~ %s AND i.indisvalid = %s"
    )
    return [row[0] for row in cursor.execute(statement, (schema, f"^{name}{_LEFT}", valid))]

"""Reindex: build a bloated index anew, beside the old one."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine

INDEXES = (
    "river_job_args_index",
    "river_job_kind",
    "river_job_metadata_index",
    "river_job_pkey",
    "river_job_prioritized_fetching_index",
    "river_job_state_and_finalized_at_index",
    "river_job_unique_idx",
)
"""Those that bloat. Source: River 0.51, internal/maintenance/reindexer.go."""

# What REINDEX CONCURRENTLY leaves when it fails is not valid; nothing else here is.
_LEFT = r"_cc(?:new|old)\d*$"


def reindex(
    engine: Engine,
    name: str,
    *,
    timeout_s: float,
    schema: str | None = None,
    on_begin: Callable[[Callable[[], None]], None] = lambda _: None,
) -> bool:
    """Rebuild the index `name`, and let the table be used meanwhile.

    Args:
        engine: Where; the statement cannot join a transaction.
        name: The index.
        timeout_s: Seconds it may take; 0 for as long as it does.
        schema: The schema of River's tables; the search path's unless said.
        on_begin: Given a function that cancels it, to be called from another thread.

    Returns:
        Whether it was rebuilt; not if it is not there, or somebody else is at it, or beside it
        stands one that looks like what REINDEX leaves but is valid: no program can tell whether
        that is wanted. What an earlier try has left is removed first.

    Raises:
        sqlalchemy.exc.DBAPIError, psycopg.Error: If it failed; what it left is removed.
    """
    place = [schema] if schema else []
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        driver: Any = connection.connection.driver_connection
        if not _is_there(driver, schema, name) or _is_rebuilt(driver, schema, name):
            return False
        on_begin(driver.cancel)
        driver.execute(sql.SQL("SET statement_timeout = {}").format(int(timeout_s * 1000)))
        try:
            _drop_left(driver, schema, name)
            if _left(driver, schema, name, valid=True):
                return False
            command = sql.SQL("REINDEX INDEX CONCURRENTLY {}")
            driver.execute(command.format(sql.Identifier(*place, name)))
        except BaseException:
            driver.execute("SET statement_timeout = '15s'")
            with suppress(psycopg.Error):
                _drop_left(driver, schema, name)
            raise
        finally:
            driver.execute("RESET statement_timeout")
    return True


def _is_there(driver: Any, schema: str | None, name: str) -> bool:
    statement = (
        "SELECT 1 FROM pg_indexes WHERE schemaname = coalesce(%s, current_schema())"
        " AND indexname = %s"
    )
    return driver.execute(statement, (schema, name)).fetchone() is not None


def _is_rebuilt(driver: Any, schema: str | None, name: str) -> bool:
    statement = (
        "SELECT 1 FROM pg_stat_progress_create_index p JOIN pg_index i ON i.indrelid = p.relid"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = coalesce(%s, current_schema()) AND c.relname = %s"
    )
    return driver.execute(statement, (schema, name)).fetchone() is not None


def _drop_left(driver: Any, schema: str | None, name: str) -> None:
    for left in _left(driver, schema, name, valid=False):
        drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
        driver.execute(drop.format(sql.Identifier(*([schema] if schema else []), left)))


def _left(driver: Any, schema: str | None, name: str, *, valid: bool) -> list[str]:
    statement = (
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = coalesce(%s, current_schema()) AND c.relname ~ %s AND i.indisvalid = %s"
    )
    return [row[0] for row in driver.execute(statement, (schema, f"^{name}{_LEFT}", valid))]

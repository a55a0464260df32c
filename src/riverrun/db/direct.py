"""Statements that go directly to psycopg, and the conditions under which they may.

For a small statement, SQLAlchemy takes as much time as the server.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy import ClauseElement, Connection, Dialect, Engine

from riverrun.db.driver import OwnCursor, TimesAsNumbers

_A_SCHEMA = "riverrun_any_schema"
"""Stands for the schema in a compiled statement: an application may have one for each tenant."""


def compiled(
    statement: ClauseElement, dialect: Dialect, schema: str | None
) -> tuple[str, Mapping[str, Any]]:
    """Return a statement's text for the driver, and its constant binds."""
    known = _texts.setdefault(dialect, {})
    found = known.get((statement, schema is not None))
    if found is None:
        places: Any = {} if schema is None else {"schema_translate_map": {None: _A_SCHEMA}}
        compiled = statement.compile(
            dialect=_with_names(dialect), render_schema_translate=schema is not None, **places
        )
        found = known[statement, schema is not None] = str(compiled), dict(compiled.params)
    query, constants = found
    if schema is not None:
        query = query.replace(_A_SCHEMA, dialect.identifier_preparer.quote_schema(schema))
    return query, constants


def _with_names(dialect: Dialect) -> Dialect:
    """Return `dialect`, or a copy whose binds have names if the engine has another `paramstyle`."""
    if not dialect.positional:
        return dialect
    named = copy(dialect)
    named.paramstyle, named.positional = "pyformat", False
    return named


_texts: WeakKeyDictionary[
    Dialect, dict[tuple[ClauseElement, bool], tuple[str, Mapping[str, Any]]]
] = WeakKeyDictionary()
"""The compiled statements of each engine. Statements are few: each verb makes its own once."""


def fetched(
    driver: psycopg.Connection[Any], query: str, binds: Mapping[str, Any], *, times: bool
) -> Sequence[Sequence[Any]]:
    """Execute a statement, and return its rows; with `times`, times are numbers."""
    cursor = TimesAsNumbers(driver) if times else OwnCursor(driver)
    return cursor.execute(query, binds).fetchall()


def takes_statements(connection: Connection) -> bool:
    """Return whether the transaction of `connection` takes statements; begin it if there is none.

    SQLAlchemy itself begins it with its first statement.
    """
    transaction, savepoint = connection.get_transaction(), connection.get_nested_transaction()
    block: Any = connection._trans_context_manager  # of `with connection.begin()`, until its end
    if transaction is None and block is None:
        transaction = connection.begin()
    if transaction is None or not transaction.is_active:
        return False
    return all(part is None or part.is_active for part in (savepoint, block))


def has_listeners(bind: Engine | Connection) -> bool:
    """Return whether the application listens to statements, as for tracing, or logs them."""
    engine = bind.engine
    dialect: Any = bind.dialect.dispatch
    return bool(
        # Without any events SQLAlchemy calls no listener either. On a new Connection, looking for
        # each would take longer than the driver takes for a statement.
        ((bind._has_events or engine._has_events) and _listens(bind))
        or dialect.do_execute
        or dialect.handle_error
        or engine.logger.isEnabledFor(logging.INFO)  # by `echo`, or by the logger's level
    )


def _listens(bind: Engine | Connection) -> bool:
    dispatch: Any = bind.dispatch
    return bool(
        dispatch.before_cursor_execute
        or dispatch.after_cursor_execute
        or dispatch.before_execute
        or dispatch.after_execute
    )


def fetch(
    driver: psycopg.Connection[Any], engine: Engine, statement: Any, params: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    """Execute a statement that uses no tables on a connection of `engine`, and return its rows."""
    query, constants = compiled(statement, engine.dialect, None)
    return OwnCursor(driver).execute(query, {**constants, **params}).fetchall()

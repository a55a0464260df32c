"""Read PostgreSQL's catalog of a schema's tables, as plain data."""

import re
from typing import Any

from sqlalchemy import Connection, text

COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = CAST(:schema AS regnamespace) AND c.relkind = 'r'
        AND c.relname LIKE 'river%'
    ORDER BY c.relname, a.attnum
"""
UNLOGGED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = CAST(:schema AS regnamespace) AND relpersistence = 'u' AND relkind = 'r'
    ORDER BY relname
"""
CONSTRAINTS = """
    SELECT c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid)
    FROM pg_constraint c
    JOIN pg_class t ON t.oid = c.conrelid
    WHERE c.connamespace = CAST(:schema AS regnamespace) AND t.relname LIKE 'river%'
        AND c.contype <> 'n'
    ORDER BY 1, 2
"""
INDEXES = """
    SELECT pg_get_indexdef(i.indexrelid)
    FROM pg_index i
    JOIN pg_class t ON t.oid = i.indrelid
    WHERE t.relnamespace = CAST(:schema AS regnamespace) AND t.relname LIKE 'river%'
    ORDER BY 1
"""
FUNCTIONS = """
    SELECT p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid),
        p.provolatile::text, p.prosrc
    FROM pg_proc p WHERE p.pronamespace = CAST(:schema AS regnamespace) ORDER BY 1
"""
TRIGGERS = """
    SELECT tgname FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
    WHERE t.relnamespace = CAST(:schema AS regnamespace) AND NOT tgisinternal ORDER BY 1
"""
STATES = """
    SELECT e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
    WHERE t.typnamespace = CAST(:schema AS regnamespace) AND t.typname = 'river_job_state'
    ORDER BY e.enumsortorder
"""


def catalog(connection: Connection, schema: str) -> dict[str, list[Any]]:
    """Return the catalog of the tables in `schema`, without the schema's own name."""
    quoted = '"' + str(schema).replace('"', '""') + '"'

    def rows(statement: str) -> list[Any]:
        found = connection.execute(text(statement), {"schema": quoted})
        return [tuple(map(neutral, row)) for row in found]

    def neutral(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for name in (quoted.replace("'", "''"), quoted, str(schema)):  # first as in a literal
            value = value.replace(f"{name}.", "")
        return re.sub(r"\s+", " ", value).strip()

    return {
        "columns": rows(COLUMNS),
        "unlogged": rows(UNLOGGED),
        "constraints": rows(CONSTRAINTS),
        "indexes": rows(INDEXES),
        "functions": rows(FUNCTIONS),
        "triggers": rows(TRIGGERS),
        "states": rows(STATES),
    }

"""Records which of several Alembic environments on one database created the tables.

The environment that creates riverrun's first table stores its name in that table's comment. Another
environment does not take the tables down, unless its revision has `frm=`.
"""

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text

from riverrun.migrations.ddl import prefix, run

_MADE_BY = "made by the Alembic environment of "


def sign(op: Operations, schema: str | None) -> None:
    """Store this environment's name in the comment of riverrun's first table.

    A comment that is there already stays. This works in a script too.
    """
    name = _literal(_version_table(op.get_context()))
    run(
        op,
        schema,
        f"""
        DO $body$
        DECLARE
            place text;
        BEGIN
            SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = to_regclass({name});
            IF obj_description('{{s}}riverrun_client'::regclass, 'pg_class') IS NULL
                AND place IS NOT NULL
            THEN
                EXECUTE 'COMMENT ON TABLE ' || '{{s}}riverrun_client'::regclass
                    || ' IS ' || quote_literal('{_MADE_BY}' || place);
            END IF;
        END;
        $body$
        """,
    )


def guard_maker(op: Operations, schema: str | None) -> None:
    """Print a statement that makes a script fail if another environment created the tables."""
    name = _literal(_version_table(op.get_context()))
    run(
        op,
        schema,
        f"""
        DO $body$
        DECLARE
            maker text DEFAULT obj_description(to_regclass('{{s}}riverrun_client'), 'pg_class');
            place text;
        BEGIN
            SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = to_regclass({name});
            IF starts_with(maker, '{_MADE_BY}') AND maker <> '{_MADE_BY}' || place THEN
                RAISE EXCEPTION USING
                    MESSAGE = 'the tables were ' || maker,
                    HINT = 'To take them down all the same, pass frm= to op.riverrun_migrate.';
            END IF;
        END;
        $body$
        """,
    )


def made_by_another(
    connection: Connection, context: MigrationContext, schema: str | None
) -> str | None:
    """Return the version table of the environment that created the tables, if it is another one.

    Returns:
        The name of the version table; None if this environment created the tables, or if the
        creator is not known.
    """
    statement = text(
        "SELECT obj_description(to_regclass(:ours), 'pg_class'),"
        " (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = to_regclass(:mine))"
    )
    params = {"ours": f"{prefix(schema)}riverrun_client", "mine": _version_table(context)}
    comment, mine = connection.execute(statement, params).one()
    if comment is None or not comment.startswith(_MADE_BY):
        return None
    maker: str = comment.removeprefix(_MADE_BY)
    return None if maker == mine else maker


def _version_table(context: MigrationContext) -> str:
    quoted = context.version_table.replace('"', '""')
    return f'{prefix(context.version_table_schema)}"{quoted}"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

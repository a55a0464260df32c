"""Version 4: the state `pending`, stricter constraints, river_queue; drops the insert trigger."""

from alembic.operations import Operations
from sqlalchemy import text

from riverrun.migrations.ddl import OWN_TRANSACTION, escaped, prefix, run, transaction_of_its_own
from riverrun.migrations.river.v002 import NOTIFY

# Replaces the type if the current transaction created it, so that its table is nearly empty. Before
# PostgreSQL 17, a value added to it could not be used before the commit, and version 6 uses it.
_NEW_TYPE = (
    "ALTER TABLE {s}river_job DROP CONSTRAINT IF EXISTS finalized_or_finalized_at_null",
    "ALTER TYPE {s}river_job_state RENAME TO river_job_state_old",
    """
    CREATE TYPE {s}river_job_state AS ENUM (
        'available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running',
        'scheduled'
    )
    """,
    """
    ALTER TABLE {s}river_job
        ALTER COLUMN state DROP DEFAULT,
        ALTER COLUMN state TYPE {s}river_job_state USING state::text::{s}river_job_state,
        ALTER COLUMN state SET DEFAULT 'available'
    """,
    "DROP TYPE {s}river_job_state_old",
)


def upgrade(op: Operations, schema: str | None) -> None:
    """Add `pending` and river_queue, and make args and metadata NOT NULL."""
    run(
        op,
        schema,
        "UPDATE {s}river_job SET args = '{}' WHERE args IS NULL",
        "UPDATE {s}river_job SET metadata = '{}' WHERE metadata IS NULL",
        """
        ALTER TABLE {s}river_job
            ALTER COLUMN args SET NOT NULL,
            ALTER COLUMN metadata SET DEFAULT '{}',
            ALTER COLUMN metadata SET NOT NULL
        """,
    )
    _add_pending(op, schema)
    run(
        op,
        schema,
        """
        ALTER TABLE {s}river_job
            DROP CONSTRAINT IF EXISTS finalized_or_finalized_at_null,
            ADD CONSTRAINT finalized_or_finalized_at_null CHECK (
                (finalized_at IS NULL AND state NOT IN ('cancelled', 'completed', 'discarded'))
                OR (finalized_at IS NOT NULL AND state IN ('cancelled', 'completed', 'discarded'))
            )
        """,
        "DROP TRIGGER IF EXISTS river_notify ON {s}river_job",
        "DROP FUNCTION IF EXISTS {s}river_job_notify()",
        """
        CREATE TABLE IF NOT EXISTS {s}river_queue (
            name text PRIMARY KEY,
            created_at timestamptz NOT NULL DEFAULT now(),
            metadata jsonb NOT NULL DEFAULT '{}',
            paused_at timestamptz,
            updated_at timestamptz NOT NULL
        )
        """,
        """
        ALTER TABLE {s}river_leader
            ALTER COLUMN name SET DEFAULT 'default',
            DROP CONSTRAINT IF EXISTS name_length,
            ADD CONSTRAINT name_length CHECK (name = 'default')
        """,
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Undo everything but `pending`: PostgreSQL cannot remove a value from an enum."""
    run(
        op,
        schema,
        """
        ALTER TABLE {s}river_job
            ALTER COLUMN args DROP NOT NULL,
            ALTER COLUMN metadata DROP NOT NULL,
            ALTER COLUMN metadata DROP DEFAULT,
            DROP CONSTRAINT IF EXISTS finalized_or_finalized_at_null,
            ADD CONSTRAINT finalized_or_finalized_at_null CHECK (
                (state IN ('cancelled', 'completed', 'discarded') AND finalized_at IS NOT NULL)
                OR finalized_at IS NULL
            )
        """,
        *NOTIFY,
        "DROP TABLE IF EXISTS {s}river_queue",
        """
        ALTER TABLE {s}river_leader
            ALTER COLUMN name DROP DEFAULT,
            DROP CONSTRAINT IF EXISTS name_length,
            ADD CONSTRAINT name_length CHECK (char_length(name) > 0 AND char_length(name) < 128)
        """,
    )


def _add_pending(op: Operations, schema: str | None) -> None:
    context = op.get_context()
    if context.as_sql:
        # This works however the script is run later, in one transaction or in many.
        run(op, schema, *_NEW_TYPE)
        return
    statement = "ALTER TYPE {s}river_job_state ADD VALUE IF NOT EXISTS 'pending' AFTER 'discarded'"
    row = (
        op.get_bind()
        .execute(
            text(
                "SELECT 'pending' = ANY (enum_range(NULL::"
                + escaped(prefix(schema))
                + "river_job_state)"
                "::text[]), xmin = pg_current_xact_id()::xid FROM pg_type WHERE oid = "
                "CAST(:name AS regtype)"
            ),
            {"name": f"{prefix(schema)}river_job_state"},
        )
        .one()
    )
    has_pending, created_here = row
    if has_pending:
        return
    if created_here:
        run(op, schema, *_NEW_TYPE)
        return
    if context.opts.get(OWN_TRANSACTION):
        run(op, schema, statement)
        return
    # A value added to an already committed type cannot be used before the transaction ends, and
    # version 6 uses it; so this statement gets a transaction of its own.
    with transaction_of_its_own(context):
        run(op, schema, statement)

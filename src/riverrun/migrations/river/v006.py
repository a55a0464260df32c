"""Version 6: a job's key is unique only among jobs in the states of its bit mask."""

from alembic.operations import Operations

from riverrun.migrations.ddl import run


def upgrade(op: Operations, schema: str | None) -> None:
    """Add the bit mask, the function that reads it, and the index that uses both."""
    run(
        op,
        schema,
        """
        CREATE OR REPLACE FUNCTION {s}river_job_state_in_bitmask(
            bitmask bit(8), state {s}river_job_state
        ) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
            SELECT CASE state
                WHEN 'available' THEN get_bit(bitmask, 7)
                WHEN 'cancelled' THEN get_bit(bitmask, 6)
                WHEN 'completed' THEN get_bit(bitmask, 5)
                WHEN 'discarded' THEN get_bit(bitmask, 4)
                WHEN 'pending' THEN get_bit(bitmask, 3)
                WHEN 'retryable' THEN get_bit(bitmask, 2)
                WHEN 'running' THEN get_bit(bitmask, 1)
                WHEN 'scheduled' THEN get_bit(bitmask, 0)
                ELSE 0
            END = 1;
        $$
        """,
        "ALTER TABLE {s}river_job ADD COLUMN IF NOT EXISTS unique_states bit(8)",
        """
        CREATE UNIQUE INDEX IF NOT EXISTS river_job_unique_idx ON {s}river_job (unique_key)
            WHERE unique_key IS NOT NULL
                AND unique_states IS NOT NULL
                AND {s}river_job_state_in_bitmask(unique_states, state)
        """,
        "DROP INDEX IF EXISTS {s}river_job_kind_unique_key_idx",
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Go back to keys that are unique per kind, in any state."""
    run(
        op,
        schema,
        "DROP INDEX IF EXISTS {s}river_job_unique_idx",
        "ALTER TABLE {s}river_job DROP COLUMN IF EXISTS unique_states",
        """
        CREATE UNIQUE INDEX IF NOT EXISTS river_job_kind_unique_key_idx
            ON {s}river_job (kind, unique_key) WHERE unique_key IS NOT NULL
        """,
        "DROP FUNCTION IF EXISTS {s}river_job_state_in_bitmask(bit, {s}river_job_state)",
    )

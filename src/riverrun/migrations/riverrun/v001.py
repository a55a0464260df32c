"""Version 1: riverrun_client, the table of running clients with their heartbeats."""

from alembic.operations import Operations

from riverrun.migrations.ddl import run


def upgrade(op: Operations, schema: str | None) -> None:
    """Create riverrun_client."""
    run(
        op,
        schema,
        """
        CREATE TABLE IF NOT EXISTS {s}riverrun_client (
            id text PRIMARY KEY,
            created_at timestamptz NOT NULL DEFAULT now(),
            heartbeat_at timestamptz NOT NULL DEFAULT now(),
            hostname text NOT NULL,
            pid integer NOT NULL,
            queues text[] NOT NULL DEFAULT '{}',
            metadata jsonb NOT NULL DEFAULT '{}',
            CONSTRAINT riverrun_client_id_length
                CHECK (char_length(id) > 0 AND char_length(id) < 128)
        )
        """,
        """
        CREATE INDEX IF NOT EXISTS riverrun_client_heartbeat_at_idx
            ON {s}riverrun_client (heartbeat_at)
        """,
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Drop riverrun_client."""
    run(op, schema, "DROP TABLE IF EXISTS {s}riverrun_client")

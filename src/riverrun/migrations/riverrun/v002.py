"""Version 2: riverrun_periodic, the table of when periodic jobs with an id run next."""

from alembic.operations import Operations

from riverrun.migrations.ddl import run


def upgrade(op: Operations, schema: str | None) -> None:
    """Create riverrun_periodic."""
    run(
        op,
        schema,
        """
        CREATE TABLE IF NOT EXISTS {s}riverrun_periodic (
            id text PRIMARY KEY,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            next_run_at timestamptz NOT NULL,
            last_run_at timestamptz,
            CONSTRAINT riverrun_periodic_id_length
                CHECK (char_length(id) > 0 AND char_length(id) < 128)
        )
        """,
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Drop riverrun_periodic."""
    run(op, schema, "DROP TABLE IF EXISTS {s}riverrun_periodic")

"""Version 1: river_migration, the table of installed versions, in its first form."""

from alembic.operations import Operations

from riverrun.migrations.ddl import run


def upgrade(op: Operations, schema: str | None) -> None:
    """Create river_migration."""
    run(
        op,
        schema,
        """
        CREATE TABLE IF NOT EXISTS {s}river_migration (
            id bigserial PRIMARY KEY,
            created_at timestamptz NOT NULL DEFAULT now(),
            version bigint NOT NULL,
            CONSTRAINT version CHECK (version >= 1)
        )
        """,
        # Not if the table already has the column `line`: each line has a version 1.
        """
        DO $body$
        BEGIN
            IF NOT EXISTS (
                SELECT FROM pg_attribute
                WHERE attrelid = to_regclass('{s}river_migration')
                    AND attname = 'line' AND NOT attisdropped
            )
            THEN
                CREATE UNIQUE INDEX IF NOT EXISTS river_migration_version_idx
                    ON {s}river_migration (version);
            END IF;
        END;
        $body$
        """,
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Drop river_migration."""
    run(op, schema, "DROP TABLE IF EXISTS {s}river_migration")

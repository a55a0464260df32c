"""Version 5: lines in river_migration, unique keys, and two tables for clients."""

from alembic.operations import Operations

from riverrun.migrations.ddl import run

CLIENTS = (
    """
    CREATE UNLOGGED TABLE IF NOT EXISTS {s}river_client (
        id text PRIMARY KEY,
        created_at timestamptz NOT NULL DEFAULT now(),
        metadata jsonb NOT NULL DEFAULT '{}',
        paused_at timestamptz,
        updated_at timestamptz NOT NULL,
        CONSTRAINT name_length CHECK (char_length(id) > 0 AND char_length(id) < 128)
    )
    """,
    """
    CREATE UNLOGGED TABLE IF NOT EXISTS {s}river_client_queue (
        river_client_id text NOT NULL REFERENCES {s}river_client (id) ON DELETE CASCADE,
        name text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        max_workers bigint NOT NULL DEFAULT 0,
        metadata jsonb NOT NULL DEFAULT '{}',
        num_jobs_completed bigint NOT NULL DEFAULT 0,
        num_jobs_running bigint NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (river_client_id, name),
        CONSTRAINT name_length CHECK (char_length(name) > 0 AND char_length(name) < 128),
        CONSTRAINT num_jobs_completed_zero_or_positive CHECK (num_jobs_completed >= 0),
        CONSTRAINT num_jobs_running_zero_or_positive CHECK (num_jobs_running >= 0)
    )
    """,
)
NO_CLIENTS = (
    "DROP TABLE IF EXISTS {s}river_client_queue",
    "DROP TABLE IF EXISTS {s}river_client",
)


def upgrade(op: Operations, schema: str | None) -> None:
    """Add `line` to river_migration and `unique_key` to river_job, and create the client tables."""
    run(
        op,
        schema,
        """
        DO $body$
        BEGIN
            IF to_regclass('{s}river_migration') IS NOT NULL
                AND NOT EXISTS (
                    SELECT FROM pg_attribute
                    WHERE attrelid = to_regclass('{s}river_migration')
                        AND attname = 'line' AND NOT attisdropped
                )
            THEN
                ALTER TABLE {s}river_migration RENAME TO river_migration_old;
                CREATE TABLE {s}river_migration (
                    line text NOT NULL,
                    version bigint NOT NULL,
                    created_at timestamptz NOT NULL DEFAULT now(),
                    CONSTRAINT line_length
                        CHECK (char_length(line) > 0 AND char_length(line) < 128),
                    CONSTRAINT version_gte_1 CHECK (version >= 1),
                    PRIMARY KEY (line, version)
                );
                INSERT INTO {s}river_migration (line, version, created_at)
                    SELECT 'main', version, created_at FROM {s}river_migration_old;
                DROP TABLE {s}river_migration_old;
            END IF;
        END;
        $body$
        """,
        "ALTER TABLE {s}river_job ADD COLUMN IF NOT EXISTS unique_key bytea",
        # Not if version 6 is installed already: it makes keys unique in another way.
        """
        DO $body$
        BEGIN
            IF NOT EXISTS (
                SELECT FROM pg_attribute
                WHERE attrelid = to_regclass('{s}river_job')
                    AND attname = 'unique_states' AND NOT attisdropped
            )
            THEN
                CREATE UNIQUE INDEX IF NOT EXISTS river_job_kind_unique_key_idx
                    ON {s}river_job (kind, unique_key) WHERE unique_key IS NOT NULL;
            END IF;
        END;
        $body$
        """,
        *CLIENTS,
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Undo the upgrade; it fails while river_migration has rows of other lines than River's."""
    run(
        op,
        schema,
        """
        DO $body$
        BEGIN
            IF to_regclass('{s}river_migration') IS NOT NULL THEN
                IF EXISTS (SELECT FROM {s}river_migration WHERE line <> 'main') THEN
                    RAISE EXCEPTION 'river_migration holds lines other than main';
                END IF;
                ALTER TABLE {s}river_migration RENAME TO river_migration_old;
                CREATE TABLE {s}river_migration (
                    id bigserial PRIMARY KEY,
                    created_at timestamptz NOT NULL DEFAULT now(),
                    version bigint NOT NULL,
                    CONSTRAINT version CHECK (version >= 1)
                );
                CREATE UNIQUE INDEX river_migration_version_idx
                    ON {s}river_migration (version);
                INSERT INTO {s}river_migration (version, created_at)
                    SELECT version, created_at FROM {s}river_migration_old;
                DROP TABLE {s}river_migration_old;
            END IF;
        END;
        $body$
        """,
        "ALTER TABLE {s}river_job DROP COLUMN IF EXISTS unique_key",
        *NO_CLIENTS,
    )

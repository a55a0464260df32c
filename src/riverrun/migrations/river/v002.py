"""Version 2: jobs, the leader, and a trigger that notifies of inserted jobs."""

from alembic.operations import Operations

from riverrun.migrations.ddl import run

NOTIFY = (
    """
    CREATE OR REPLACE FUNCTION {s}river_job_notify() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        payload json;
    BEGIN
        IF NEW.state = 'available' THEN
            payload = json_build_object('queue', NEW.queue);
            PERFORM pg_notify('river_insert', payload::text);
        END IF;
        RETURN NULL;
    END;
    $$
    """,
    "DROP TRIGGER IF EXISTS river_notify ON {s}river_job",
    """
    CREATE TRIGGER river_notify AFTER INSERT ON {s}river_job
        FOR EACH ROW EXECUTE PROCEDURE {s}river_job_notify()
    """,
)


def upgrade(op: Operations, schema: str | None) -> None:
    """Create river_job with its type, trigger and indexes, and river_leader."""
    run(
        op,
        schema,
        # CREATE TYPE has no IF NOT EXISTS.
        """
        DO $body$
        BEGIN
            IF to_regtype('{s}river_job_state') IS NULL THEN
                CREATE TYPE {s}river_job_state AS ENUM (
                    'available', 'cancelled', 'completed', 'discarded', 'retryable', 'running',
                    'scheduled'
                );
            END IF;
        END;
        $body$
        """,
        """
        CREATE TABLE IF NOT EXISTS {s}river_job (
            id bigserial PRIMARY KEY,
            state {s}river_job_state NOT NULL DEFAULT 'available',
            attempt smallint NOT NULL DEFAULT 0,
            max_attempts smallint NOT NULL,
            attempted_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            finalized_at timestamptz,
            scheduled_at timestamptz NOT NULL DEFAULT now(),
            priority smallint NOT NULL DEFAULT 1,
            args jsonb,
            attempted_by text[],
            errors jsonb[],
            kind text NOT NULL,
            metadata jsonb NOT NULL DEFAULT '{}',
            queue text NOT NULL DEFAULT 'default',
            tags varchar(255)[],
            CONSTRAINT finalized_or_finalized_at_null CHECK (
                (state IN ('cancelled', 'completed', 'discarded') AND finalized_at IS NOT NULL)
                OR finalized_at IS NULL
            ),
            CONSTRAINT max_attempts_is_positive CHECK (max_attempts > 0),
            CONSTRAINT priority_in_range CHECK (priority >= 1 AND priority <= 4),
            CONSTRAINT queue_length CHECK (char_length(queue) > 0 AND char_length(queue) < 128),
            CONSTRAINT kind_length CHECK (char_length(kind) > 0 AND char_length(kind) < 128)
        )
        """,
        "CREATE INDEX IF NOT EXISTS river_job_kind ON {s}river_job (kind)",
        """
        CREATE INDEX IF NOT EXISTS river_job_state_and_finalized_at_index
            ON {s}river_job (state, finalized_at) WHERE finalized_at IS NOT NULL
        """,
        """
        CREATE INDEX IF NOT EXISTS river_job_prioritized_fetching_index
            ON {s}river_job (state, queue, priority, scheduled_at, id)
        """,
        "CREATE INDEX IF NOT EXISTS river_job_args_index ON {s}river_job USING gin (args)",
        "CREATE INDEX IF NOT EXISTS river_job_metadata_index ON {s}river_job USING gin (metadata)",
        *NOTIFY,
        """
        CREATE UNLOGGED TABLE IF NOT EXISTS {s}river_leader (
            elected_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            leader_id text NOT NULL,
            name text PRIMARY KEY,
            CONSTRAINT name_length CHECK (char_length(name) > 0 AND char_length(name) < 128),
            CONSTRAINT leader_id_length
                CHECK (char_length(leader_id) > 0 AND char_length(leader_id) < 128)
        )
        """,
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Drop everything that this version created, including all jobs."""
    run(
        op,
        schema,
        "DROP TABLE IF EXISTS {s}river_job",
        "DROP FUNCTION IF EXISTS {s}river_job_notify()",
        "DROP TYPE IF EXISTS {s}river_job_state",
        "DROP TABLE IF EXISTS {s}river_leader",
    )

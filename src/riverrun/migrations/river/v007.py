"""Version 7: a table of notifications, and two defaults; drops the client tables.

River uses that table on databases without LISTEN and NOTIFY.
"""

from alembic.operations import Operations

from riverrun.migrations.ddl import run
from riverrun.migrations.river.v005 import CLIENTS, NO_CLIENTS


def upgrade(op: Operations, schema: str | None) -> None:
    """Create river_notification, add the defaults, and drop the client tables."""
    run(
        op,
        schema,
        """
        CREATE TABLE IF NOT EXISTS {s}river_notification (
            id bigserial PRIMARY KEY,
            created_at timestamptz NOT NULL DEFAULT now(),
            payload text NOT NULL,
            topic text NOT NULL,
            CONSTRAINT topic_length CHECK (length(topic) > 0 AND length(topic) < 128)
        )
        """,
        """
        CREATE INDEX IF NOT EXISTS river_notification_created_at_idx
            ON {s}river_notification (created_at)
        """,
        """
        CREATE INDEX IF NOT EXISTS river_notification_topic_id_idx
            ON {s}river_notification (topic, id)
        """,
        *NO_CLIENTS,
        "ALTER TABLE {s}river_job ALTER COLUMN max_attempts SET DEFAULT 25",
        "ALTER TABLE {s}river_queue ALTER COLUMN updated_at SET DEFAULT CURRENT_TIMESTAMP",
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Undo the upgrade; the client tables come back empty."""
    run(
        op,
        schema,
        *CLIENTS,
        "ALTER TABLE {s}river_job ALTER COLUMN max_attempts DROP DEFAULT",
        "ALTER TABLE {s}river_queue ALTER COLUMN updated_at DROP DEFAULT",
        "DROP TABLE IF EXISTS {s}river_notification",
    )

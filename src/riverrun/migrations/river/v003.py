"""Version 3: a job's tags are never null."""

from alembic.operations import Operations

from riverrun.migrations.ddl import run


def upgrade(op: Operations, schema: str | None) -> None:
    """Replace null tags with empty ones, and forbid null."""
    run(
        op,
        schema,
        "ALTER TABLE {s}river_job ALTER COLUMN tags SET DEFAULT '{}'",
        "UPDATE {s}river_job SET tags = '{}' WHERE tags IS NULL",
        "ALTER TABLE {s}river_job ALTER COLUMN tags SET NOT NULL",
    )


def downgrade(op: Operations, schema: str | None) -> None:
    """Allow null tags again."""
    run(
        op,
        schema,
        "ALTER TABLE {s}river_job ALTER COLUMN tags DROP NOT NULL, ALTER COLUMN tags DROP DEFAULT",
    )

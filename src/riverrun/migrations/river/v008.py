"""Version 8: changes SQLite only. On PostgreSQL, River's validate still expects its row."""

from alembic.operations import Operations


def upgrade(op: Operations, schema: str | None) -> None:
    """Do nothing."""


def downgrade(op: Operations, schema: str | None) -> None:
    """Do nothing."""

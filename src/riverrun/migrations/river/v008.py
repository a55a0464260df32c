"""Version 8: changes SQLite only; on PostgreSQL it is a number that River's validate asks for."""

from alembic.operations import Operations


def upgrade(op: Operations, schema: str | None) -> None:
    """Do nothing."""


def downgrade(op: Operations, schema: str | None) -> None:
    """Do nothing."""

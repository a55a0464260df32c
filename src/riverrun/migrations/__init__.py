"""Migrations of River's tables and riverrun's own, with Alembic or without.

With Alembic, as the only operation of one of the application's own revisions:

    import riverrun.migrations

    def upgrade():
        op.riverrun_migrate()

Without Alembic: `migrate(engine)`, or `riverrun migrate up`.
"""

from riverrun.migrations.directive import RiverrunMigrate
from riverrun.migrations.filters import include_name
from riverrun.migrations.lines import LATEST, Line, Step
from riverrun.migrations.run import Missing, migrate, sql, validate
from riverrun.migrations.state import current

__all__ = [
    "LATEST",
    "Line",
    "Missing",
    "RiverrunMigrate",
    "Step",
    "current",
    "include_name",
    "migrate",
    "sql",
    "validate",
]

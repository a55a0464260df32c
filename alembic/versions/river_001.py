"""River's version 1: its table of migrations."""

from alembic import context, op

import riverrun.migrations  # noqa: F401  gives op its riverrun_migrate

revision = "river_001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = context.get_x_argument(as_dictionary=True).get("schema")


def upgrade() -> None:
    op.riverrun_migrate(river=1, riverrun=0, frm=(0, 0), schema=SCHEMA)


def downgrade() -> None:
    op.riverrun_migrate(river=0, riverrun=0, frm=(1, 0), schema=SCHEMA)

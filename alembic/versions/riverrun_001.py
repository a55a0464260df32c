"""riverrun's version 1: clients that live."""

from alembic import context, op

import riverrun.migrations  # noqa: F401  gives op its riverrun_migrate

revision = "riverrun_001"
down_revision = "river_008"
branch_labels = None
depends_on = None

SCHEMA = context.get_x_argument(as_dictionary=True).get("schema")


def upgrade() -> None:
    op.riverrun_migrate(river=8, riverrun=1, frm=(8, 0), schema=SCHEMA)


def downgrade() -> None:
    op.riverrun_migrate(river=8, riverrun=0, frm=(8, 1), schema=SCHEMA)

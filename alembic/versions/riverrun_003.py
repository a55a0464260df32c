"""riverrun's version 3: samples for charts, operators' actions, and switches of periodic jobs."""

from alembic import context, op

import riverrun.migrations  # noqa: F401  gives op its riverrun_migrate

revision = "riverrun_003"
down_revision = "riverrun_002"
branch_labels = None
depends_on = None

SCHEMA = context.get_x_argument(as_dictionary=True).get("schema")


def upgrade() -> None:
    op.riverrun_migrate(river=8, riverrun=3, frm=(8, 2), schema=SCHEMA)


def downgrade() -> None:
    op.riverrun_migrate(river=8, riverrun=2, frm=(8, 3), schema=SCHEMA)

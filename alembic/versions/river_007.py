"""River's version 7: notifications as rows, two defaults."""

from alembic import context, op

import riverrun.migrations  # noqa: F401  gives op its riverrun_migrate

revision = "river_007"
down_revision = "river_006"
branch_labels = None
depends_on = None

SCHEMA = context.get_x_argument(as_dictionary=True).get("schema")


def upgrade() -> None:
    op.riverrun_migrate(river=7, riverrun=0, frm=(6, 0), schema=SCHEMA)


def downgrade() -> None:
    op.riverrun_migrate(river=6, riverrun=0, frm=(7, 0), schema=SCHEMA)

"""River's version 5: lines of migrations, unique keys."""

from alembic import context, op

import riverrun.migrations  # noqa: F401  gives op its riverrun_migrate

revision = "river_005"
down_revision = "river_004"
branch_labels = None
depends_on = None

SCHEMA = context.get_x_argument(as_dictionary=True).get("schema")


def upgrade() -> None:
    op.riverrun_migrate(river=5, riverrun=0, frm=(4, 0), schema=SCHEMA)


def downgrade() -> None:
    op.riverrun_migrate(river=4, riverrun=0, frm=(5, 0), schema=SCHEMA)

"""River's version 2: jobs and the leader."""

from alembic import context, op

import riverrun.migrations  # noqa: F401  gives op its riverrun_migrate

revision = "river_002"
down_revision = "river_001"
branch_labels = None
depends_on = None

SCHEMA = context.get_x_argument(as_dictionary=True).get("schema")


def upgrade() -> None:
    op.riverrun_migrate(river=2, riverrun=0, frm=(1, 0), schema=SCHEMA)


def downgrade() -> None:
    op.riverrun_migrate(river=1, riverrun=0, frm=(2, 0), schema=SCHEMA)

"""which protocol each site's link said it speaks"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# a hub of the version before reads the database that this made
ONLY_ADDS = True


def upgrade() -> None:
    op.add_column("sites", sa.Column("protocol", sa.Integer(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the copy that the upgrade made")

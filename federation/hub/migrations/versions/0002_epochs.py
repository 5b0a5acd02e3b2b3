"""witnessed checkpoints of several epochs, and when a site's checkpoint was refused"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.rename_table("checkpoints", "checkpoints_before")
    op.create_table(
        "checkpoints",
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("root", sa.String(length=64), nullable=False),
        sa.Column("received", sa.String(length=32), nullable=False),
        sa.Column("witness", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("site", "epoch", "size"),
    )
    op.execute(
        "INSERT INTO checkpoints (site, epoch, size, root, received, witness) "
        "SELECT site, 0, size, root, received, witness FROM checkpoints_before"
    )
    op.drop_table("checkpoints_before")
    op.add_column("sites", sa.Column("checkpoint_refused", sa.String(length=32), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the copy that the upgrade made")

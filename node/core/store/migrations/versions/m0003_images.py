"""What is in an image, who approved it, and that an approval may be taken back.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Approvals from before stay approvals, without a name and without facts."""
    op.add_column("image", sa.Column("approved_by", sa.String(200), nullable=True))
    op.add_column("image", sa.Column("withdrawn", _TIME, nullable=True))
    op.create_table(
        "image_facts",
        sa.Column("image", sa.String(200), nullable=False),
        sa.Column("manifest", sa.String(200), nullable=True),
        sa.Column("lineage", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("image", name="pk_image_facts"),
    )
    op.create_index("ix_image_facts_manifest", "image_facts", ["manifest"], unique=False)

"""What failed although everything around it answered, and what of it was set aside.

Revision ID: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "failure",
        sa.Column("kind", sa.String(200), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("first", _TIME, nullable=False),
        sa.Column("last", _TIME, nullable=False),
        sa.Column("set_aside", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("kind", "subject", name="pk_failure"),
    )
    op.create_index("ix_failure_set_aside", "failure", ["set_aside"], unique=False)

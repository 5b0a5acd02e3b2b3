"""Epochs of the audit log: what they follow, what speaks for one, and which acceptances and orders are of which.

Revision ID: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """A log from before is in epoch 0, and so is everything that came in under it."""
    op.create_table(
        "log_epoch",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.BigInteger(), nullable=False),
        sa.Column("before_epoch", sa.BigInteger(), nullable=False),
        sa.Column("before_size", sa.BigInteger(), nullable=False),
        sa.Column("before_root", sa.String(200), nullable=False),
        sa.Column("opened", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_log_epoch"),
    )
    op.create_table(
        "set_back",
        sa.Column("one", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.String(200), nullable=False),
        sa.Column("noticed", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_set_back"),
    )
    for table in ("acceptance", "run_order"):
        op.add_column(table, sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("checkpoint", sa.Column("frontier", sa.JSON(), nullable=True))

"""Counts that left under a permit; who withdrew an image.

Of what left before, nobody knows the counts any more: a row without any says so.

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Whole files; the rounds of a run are one row, because they would be a thousand. A file that waits is content whose
# column of counts only its job's declaration named.
_FILES = """
INSERT INTO shown_counts (source, permit, run, name, task, "left", time)
SELECT file, permit, run, name, 'analyse', state = 'released', created FROM airlock_file
WHERE state NOT IN ('refused', 'expired')
"""
_ROUNDS = """
INSERT INTO shown_counts (source, permit, run, name, task, "left", time)
SELECT 'rounds/' || run || '/' || permit || '/' || task, permit, run, 'rounds', task, 1 = 1, min(created) FROM release
GROUP BY run, permit, task
"""


def upgrade() -> None:
    op.add_column("airlock_file", sa.Column("near", sa.Text(), server_default="", nullable=False))
    op.add_column("image", sa.Column("withdrawn_by", sa.String(200), nullable=True))
    op.create_table(
        "shown_counts",
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("dataset_version", sa.String(200), nullable=True),
        sa.Column("split", sa.String(200), nullable=True),
        sa.Column("left", sa.Boolean(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", name="pk_shown_counts"),
    )
    op.create_index("ix_shown_counts_permit", "shown_counts", ["permit"], unique=False)
    op.execute(_FILES)
    op.execute(_ROUNDS)

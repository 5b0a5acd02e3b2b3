"""Tables of the airlock.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "airlock_file",
        sa.Column("file", sa.String(200), nullable=False),
        sa.Column("job", sa.String(200), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("needed", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(200), nullable=False),
        sa.Column("content_sha256", sa.String(200), nullable=False),
        sa.Column("record_sha256", sa.String(200), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("code", sa.String(200), nullable=True),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("updated", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["job"], ["job.job"], name="fk_airlock_file_job_job"),
        sa.PrimaryKeyConstraint("file", name="pk_airlock_file"),
    )
    op.create_index("ix_airlock_file_job", "airlock_file", ["job"], unique=False)
    op.create_index("ix_airlock_file_state", "airlock_file", ["state"], unique=False)
    op.create_table(
        "airlock_review",
        sa.Column("sha256", sa.String(200), nullable=False),
        sa.Column("file", sa.String(200), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("key_id", sa.String(200), nullable=False),
        sa.Column("decision", sa.String(200), nullable=False),
        sa.Column("why", sa.String(200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["file"], ["airlock_file.file"], name="fk_airlock_review_file_airlock_file"),
        sa.PrimaryKeyConstraint("sha256", name="pk_airlock_review"),
    )
    op.create_index("ix_airlock_review_file", "airlock_review", ["file"], unique=False)

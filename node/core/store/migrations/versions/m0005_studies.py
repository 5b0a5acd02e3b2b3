"""Which studies a dataset version holds.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Versions from before hold their own files: they refer to no study."""
    op.create_table(
        "version_study",
        sa.Column("dataset_version", sa.String(200), nullable=False),
        sa.Column("study", sa.String(200), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("root", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_version"],
            ["dataset_version.dataset_version"],
            name="fk_version_study_dataset_version_dataset_version",
        ),
        sa.ForeignKeyConstraint(["project"], ["project.project"], name="fk_version_study_project_project"),
        sa.PrimaryKeyConstraint("dataset_version", "study", name="pk_version_study"),
    )
    op.create_index("ix_version_study_project_root", "version_study", ["project", "root"], unique=False)

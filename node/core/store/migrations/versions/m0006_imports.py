"""Imports, and the studies taken for those under way.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "import",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("state", sa.String(200), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("order_text", sa.Text(), nullable=False),
        sa.Column("studies", sa.BigInteger(), nullable=False),
        sa.Column("studies_done", sa.BigInteger(), nullable=False),
        sa.Column("studies_waiting", sa.BigInteger(), nullable=False),
        sa.Column("destroyed", sa.BigInteger(), nullable=False),
        sa.Column("tried_with", sa.String(200), nullable=False),
        sa.Column("dataset_version", sa.String(200), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("not_now", sa.Boolean(), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("updated", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_import"),
    )
    op.create_index("ix_import_state", "import", ["state"], unique=False)
    op.create_table(
        "import_study",
        sa.Column("import_name", sa.String(200), nullable=False),
        sa.Column("study", sa.String(200), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("patient", sa.String(200), nullable=False),
        sa.Column("split", sa.String(200), nullable=False),
        sa.Column("instances", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.String(200), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("profile", sa.String(200), nullable=False),
        sa.Column("profile_fingerprint", sa.String(200), nullable=False),
        sa.Column("engine_version", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(["import_name"], ["import.name"], name="fk_import_study_import_name_import"),
        sa.PrimaryKeyConstraint("import_name", "study", name="pk_import_study"),
    )
    op.create_index("ix_import_study_project_root", "import_study", ["project", "root"], unique=False)

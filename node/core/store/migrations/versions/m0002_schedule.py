"""What a job used of the site's slots, and how often it made room.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns; jobs of before used nothing that is known."""
    op.add_column("job", sa.Column("used_s", sa.Double(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("preempted", sa.BigInteger(), nullable=False, server_default="0"))

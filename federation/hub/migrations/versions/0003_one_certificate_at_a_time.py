"""one certificate at a time

All but a site's newest certificate count as used; the newest ends the others when it is first shown. A revoked one
counts as used: nobody knows any more whether it was, and its key must not come back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("certificates", sa.Column("used", sa.String(length=32), nullable=True))
    op.add_column("certificates", sa.Column("ended", sa.String(length=32), nullable=True))
    op.add_column("certificates", sa.Column("renewals", sa.Integer(), server_default="0", nullable=False))
    op.add_column("certificates", sa.Column("request", sa.String(length=64), nullable=True))
    op.create_index("events_by_object", "events", ["object"])
    op.execute(
        "UPDATE certificates SET used = issued WHERE revoked IS NOT NULL OR serial NOT IN"
        " (SELECT serial FROM certificates AS newest WHERE newest.issued ="
        " (SELECT MAX(issued) FROM certificates AS other WHERE other.site = newest.site))"
    )

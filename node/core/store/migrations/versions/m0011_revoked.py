"""Every list is kept with all that is revoked by it and by those before it; of before, a list adds.

Revision ID: 0011
"""

from __future__ import annotations

import base64
import json

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("revocation_list", sa.Column("revoked", sa.JSON(), server_default="[]", nullable=False))
    connection, revoked = op.get_bind(), set[str]()
    rows = connection.execute(sa.text("SELECT number, text FROM revocation_list ORDER BY number")).all()
    for number, text in rows:
        payload = text.split(".")[1]
        revoked.update(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["permits"])
        connection.execute(
            sa.text("UPDATE revocation_list SET revoked = :revoked WHERE number = :number"),
            {"revoked": json.dumps(sorted(revoked)), "number": number},
        )

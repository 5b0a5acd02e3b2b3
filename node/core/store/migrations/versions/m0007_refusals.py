"""Refusals are counted, and of a refused instruction the id and the hash stay.

Revision ID: 0007
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INSTRUCTION = sa.table(
    "instruction",
    sa.column("instruction", sa.String),
    sa.column("text", sa.Text),
    sa.column("reply_context", sa.LargeBinary),
    sa.column("text_sha256", sa.String),
    sa.column("context_sha256", sa.String),
    sa.column("state", sa.String),
    sa.column("delivered", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    op.create_table(
        "refusal_day",
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("day", sa.String(200), nullable=False),
        sa.Column("kept", sa.BigInteger(), nullable=False),
        sa.Column("more", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "day", name="pk_refusal_day"),
    )
    for name in ("text_sha256", "context_sha256"):
        op.add_column("instruction", sa.Column(name, sa.String(200), nullable=False, server_default=""))
    _hash_what_is_kept()


def _hash_what_is_kept() -> None:
    connection, table = op.get_bind(), _INSTRUCTION
    names = connection.execute(sa.select(table.c.instruction)).scalars().all()
    for name in names:  # one at a time: together they may be gigabytes
        mine = table.c.instruction == name
        text, context, state, delivered = connection.execute(
            sa.select(table.c.text, table.c.reply_context, table.c.state, table.c.delivered).where(mine)
        ).one()
        values: dict[str, str | bytes] = {"text_sha256": _sha256(text.encode()), "context_sha256": _sha256(context)}
        if state == "refused" and delivered is not None:
            values |= {"text": "", "reply_context": b""}
        connection.execute(sa.update(table).where(mine).values(values))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

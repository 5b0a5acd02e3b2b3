"""Noised outputs are counted by dataset, and attempts that reached a container.

What was charged before is charged to its dataset with the noise that its permit asked for.

Revision ID: 0008
"""

from __future__ import annotations

import base64
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger_entry", sa.Column("dataset", sa.String(200), nullable=True))
    op.add_column("ledger_entry", sa.Column("noise_multiplier", sa.Double(), nullable=True))
    op.create_index("ix_ledger_entry_dataset", "ledger_entry", ["dataset"], unique=False)
    op.add_column("job", sa.Column("starts", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "budgeted_version",
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("dataset_version", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("permit", "dataset_version", name="pk_budgeted_version"),
    )
    op.create_index("ix_budgeted_version_dataset_version", "budgeted_version", ["dataset_version"], unique=False)
    database = op.get_bind()
    # a container's name stays with a job unless a crash came between; what it used, or how it ended, says the rest
    database.execute(
        sa.text(
            "UPDATE job SET starts = 1 WHERE sandbox IS NOT NULL OR used_s > 0 OR preempted > 0"
            " OR (dataset_version IS NOT NULL AND state = 'failed')"
        )
    )
    database.execute(
        sa.text(
            "UPDATE ledger_entry SET dataset = (SELECT MIN(version.dataset) FROM run_version AS used"
            " JOIN dataset_version AS version ON version.dataset_version = used.dataset_version"
            " WHERE used.run = ledger_entry.run)"
        )
    )
    _charge(database)


def _charge(database: Any) -> None:
    for name, version, text in database.execute(sa.text("SELECT permit, permit_version, text FROM permit")).all():
        permit = _payload(text)
        if permit["privacy"] is None:
            continue
        which = {"permit": name, "version": version}
        noised = (
            "UPDATE ledger_entry SET noise_multiplier = :noise"
            " WHERE permit = :permit AND permit_version = :version AND task = 'train'"
        )
        database.execute(sa.text(noised), {**which, "noise": float(permit["privacy"]["noise_multiplier"])})
        accepted = "SELECT text FROM acceptance WHERE permit = :permit AND permit_version = :version"
        for (yes,) in database.execute(sa.text(accepted), which).all():
            for covered in _covered(permit, _payload(yes)):
                _protect(database, name, covered)


def _covered(permit: dict[str, Any], acceptance: dict[str, Any]) -> list[str]:
    if acceptance["versions"] is not None:
        return list(acceptance["versions"])
    return [each for entry in permit["datasets"] if entry["site"] == acceptance["site"] for each in entry["versions"]]


def _protect(database: Any, permit: str, version: str) -> None:
    row = {"permit": permit, "version": version}
    held = "SELECT 1 FROM budgeted_version WHERE permit = :permit AND dataset_version = :version"
    if database.execute(sa.text(held), row).first() is None:
        add = "INSERT INTO budgeted_version (permit, dataset_version) VALUES (:permit, :version)"
        database.execute(sa.text(add), row)


def _payload(text: str) -> dict[str, Any]:
    """A document as it was kept: its signature was checked then."""
    middle = text.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found

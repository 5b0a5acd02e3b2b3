"""The whole data model, from the first table.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _people_and_data()
    _versions()
    _documents()
    _runs()
    _instructions()
    _releases()
    _audit()


def _people_and_data() -> None:
    op.create_table(
        "site",
        sa.Column("site", sa.String(200), nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("site", name="pk_site"),
    )
    op.create_table(
        "project",
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_project"),
    )
    op.create_table(
        "patient",
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("pseudonym", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["project.project"], name="fk_patient_project_project"),
        sa.PrimaryKeyConstraint("project", "pseudonym", name="pk_patient"),
    )
    op.create_table(
        "dataset",
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("site", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["project.project"], name="fk_dataset_project_project"),
        sa.ForeignKeyConstraint(["site"], ["site.site"], name="fk_dataset_site_site"),
        sa.PrimaryKeyConstraint("dataset", name="pk_dataset"),
    )


def _versions() -> None:
    op.create_table(
        "dataset_version",
        sa.Column("dataset_version", sa.String(200), nullable=False),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("supersedes", sa.String(200), nullable=True),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.String(200), nullable=False),
        sa.Column("profile_fingerprint", sa.String(200), nullable=False),
        sa.Column("engine_version", sa.String(200), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("excluded", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.dataset"], name="fk_dataset_version_dataset_dataset"),
        sa.ForeignKeyConstraint(
            ["supersedes"], ["dataset_version.dataset_version"], name="fk_dataset_version_supersedes_dataset_version"
        ),
        sa.PrimaryKeyConstraint("dataset_version", name="pk_dataset_version"),
    )
    op.create_index("ix_dataset_version_dataset", "dataset_version", ["dataset"], unique=False)
    op.create_table(
        "version_patient",
        sa.Column("dataset_version", sa.String(200), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("pseudonym", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_version"],
            ["dataset_version.dataset_version"],
            name="fk_version_patient_dataset_version_dataset_version",
        ),
        sa.ForeignKeyConstraint(
            ["project", "pseudonym"],
            ["patient.project", "patient.pseudonym"],
            name="fk_version_patient_project_pseudonym_patient",
        ),
        sa.PrimaryKeyConstraint("dataset_version", "project", "pseudonym", name="pk_version_patient"),
    )
    op.create_table(
        "withdrawal",
        sa.Column("dataset_version", sa.String(200), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_version"],
            ["dataset_version.dataset_version"],
            name="fk_withdrawal_dataset_version_dataset_version",
        ),
        sa.PrimaryKeyConstraint("dataset_version", name="pk_withdrawal"),
    )
    op.create_table(
        "image",
        sa.Column("image", sa.String(200), nullable=False),
        sa.Column("approved", _TIME, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("image", name="pk_image"),
    )


def _documents() -> None:
    op.create_table(
        "permit",
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(200), nullable=False),
        sa.Column("key_id", sa.String(200), nullable=False),
        sa.Column("received", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("permit", "permit_version", name="pk_permit"),
    )
    op.create_table(
        "acceptance",
        sa.Column("sha256", sa.String(200), nullable=False),
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(200), nullable=False),
        sa.Column("received", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_acceptance"),
    )
    op.create_index("ix_acceptance_permit_permit_version", "acceptance", ["permit", "permit_version"], unique=False)
    op.create_table(
        "run",
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("state", sa.String(200), nullable=False),
        sa.Column("changed", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_run"),
    )
    op.create_table(
        "run_order",
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("rounds", sa.BigInteger(), nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(200), nullable=False),
        sa.Column("key_id", sa.String(200), nullable=False),
        sa.Column("received", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.run"], name="fk_run_order_run_run"),
        sa.PrimaryKeyConstraint("run", name="pk_run_order"),
    )
    op.create_table(
        "revocation_list",
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("issued", _TIME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(200), nullable=False),
        sa.Column("key_id", sa.String(200), nullable=False),
        sa.Column("received", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_revocation_list"),
    )


def _runs() -> None:
    op.create_table(
        "run_version",
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("dataset_version", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_version"],
            ["dataset_version.dataset_version"],
            name="fk_run_version_dataset_version_dataset_version",
        ),
        sa.ForeignKeyConstraint(["run"], ["run.run"], name="fk_run_version_run_run"),
        sa.PrimaryKeyConstraint("run", "dataset_version", name="pk_run_version"),
    )
    op.create_table(
        "round",
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("state", sa.String(200), nullable=False),
        sa.Column("changed", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.run"], name="fk_round_run_run"),
        sa.PrimaryKeyConstraint("run", "round", "task", name="pk_round"),
    )


def _instructions() -> None:
    op.create_table(
        "instruction",
        sa.Column("instruction", sa.String(200), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("model_sha256", sa.String(200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("reply_context", sa.LargeBinary(), nullable=False),
        sa.Column("received", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("state", sa.String(200), nullable=False),
        sa.Column("hub_code", sa.String(200), nullable=True),
        sa.Column("delivered", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("instruction", name="pk_instruction"),
    )
    op.create_index("ix_instruction_delivered", "instruction", ["delivered"], unique=False)
    op.create_index("ix_instruction_run_round_task", "instruction", ["run", "round", "task"], unique=False)
    op.create_table(
        "job",
        sa.Column("job", sa.String(200), nullable=False),
        sa.Column("instruction", sa.String(200), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("dataset_version", sa.String(200), nullable=True),
        sa.Column("state", sa.String(200), nullable=False),
        sa.Column("sandbox", sa.String(200), nullable=True),
        sa.Column("code", sa.String(200), nullable=True),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("updated", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_version"], ["dataset_version.dataset_version"], name="fk_job_dataset_version_dataset_version"
        ),
        sa.ForeignKeyConstraint(["instruction"], ["instruction.instruction"], name="fk_job_instruction_instruction"),
        sa.PrimaryKeyConstraint("job", name="pk_job"),
    )
    op.create_index("ix_job_instruction", "job", ["instruction"], unique=False)
    op.create_index("ix_job_state", "job", ["state"], unique=False)


def _releases() -> None:
    op.create_table(
        "release",
        sa.Column("instruction", sa.String(200), nullable=False),
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("model_sha256", sa.String(200), nullable=False),
        sa.Column("root", sa.String(200), nullable=False),
        sa.Column("objects", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["instruction"], ["instruction.instruction"], name="fk_release_instruction_instruction"
        ),
        sa.PrimaryKeyConstraint("instruction", name="pk_release"),
    )
    op.create_index("ix_release_run_round_task", "release", ["run", "round", "task"], unique=False)
    op.create_table(
        "ledger_entry",
        sa.Column("permit", sa.String(200), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("permit_version", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("permit", "run", "round", "task", name="pk_ledger_entry"),
    )
    op.create_table(
        "canary",
        sa.Column("canary", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("fingerprint", sa.String(200), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("probes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("canary", name="pk_canary"),
    )
    op.create_index("ix_canary_fingerprint", "canary", ["fingerprint"], unique=False)
    op.create_table(
        "setting",
        sa.Column("setting", sa.String(200), nullable=False),
        sa.Column("value", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("setting", name="pk_setting"),
    )


def _audit() -> None:
    op.create_table(
        "audit_record",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("action", sa.String(200), nullable=False),
        sa.Column("verdict", sa.String(200), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_record"),
    )
    op.create_index("ix_audit_record_action", "audit_record", ["action"], unique=False)
    op.create_table(
        "audit_head",
        sa.Column("head", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("newest", _TIME, nullable=True),
        sa.Column("frontier", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("head", name="pk_audit_head"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_checkpoint"),
    )
    op.create_table(
        "witnessed",
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["size"], ["checkpoint.size"], name="fk_witnessed_size_checkpoint"),
        sa.PrimaryKeyConstraint("size", name="pk_witnessed"),
    )
    head = sa.table("audit_head", sa.column("head"), sa.column("size"), sa.column("frontier", sa.JSON()))
    op.bulk_insert(head, [{"head": 1, "size": 0, "frontier": []}])

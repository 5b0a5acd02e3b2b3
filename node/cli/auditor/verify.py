"""`cloister audit verify`: for a data protection officer, on a copy of the log, on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mediator.audit_check import AuditReport
from mediator.errors import UsageFault
from node.cli.auditor.log_folder import Log, check, read_keys, tell_seams
from node.cli.options import Json
from node.cli.output import say, show


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the log's folder, or a copy of it")],
    key: Annotated[
        Path,
        typer.Option(help="public keys: the node's audit-keys.txt (lines `audit <hex>`, `witness <hex>`), or one key"),
    ],
    witness: Annotated[
        Path | None,
        typer.Option(help="checkpoints the hub co-signed (witness.jsonl); best from `cloister hub witness export`"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every record, checkpoint and signature of a log. Exit code 4 when anything was changed.

    Finds a flipped byte, a removed or reordered record, a truncated or unknown file; with --witness also a log that the
    node itself rolled back and signed again. Says what lies beyond the last checkpoint and so is not yet covered, and
    where the log was set back and began a new epoch.
    """
    audit_keys, witness_keys = read_keys(key)
    if witness is not None and not witness_keys:
        raise UsageFault(
            f"{key} holds no witness key", hint="use the node's audit-keys.txt, or add a line `witness <hex>`"
        )
    # no record is looked at by itself: `last` is before the first
    report = Log(folder, audit_keys, witness, witness_keys).read(lambda _line: None, last=0)
    assert report is not None
    show(_summary(report), as_json=as_json)
    check(report)
    tell_seams(report)
    say("the audit log verifies")


def _summary(report: AuditReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "site": report.site,
        "records": report.records,
        "checkpointed": report.checkpointed,
        "witnessed": report.witnessed,
        "beyond_last_checkpoint": report.beyond,
        "in_flight": report.in_flight,
        "seams": [
            {
                "epoch": seam.epoch.number,
                "record": seam.record,
                "kept": seam.epoch.kept,
                "witnessed_before": seam.epoch.before.size,
                "root_before": seam.epoch.before.root,
                "witnessed": seam.witnessed,
            }
            for seam in report.seams
        ],
        "findings": [
            {"fault": finding.fault.value, "file": finding.file, "detail": finding.detail}
            for finding in report.findings
        ],
    }

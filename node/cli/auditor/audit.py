"""`cloister audit`: for a data protection officer, on a copy of the log, on any machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator.audit_check import AuditReport, Fault, Seam, is_log_file, verify_log
from mediator.errors import IntegrityBroken, UsageFault
from mediator.signatures import KeyRing, VerifyKey
from node.cli.files import read_bytes, read_text
from node.cli.options import Json
from node.cli.output import say, show
from node.host.keys import check_not_private

app = typer.Typer(no_args_is_help=True)

# a segment of 10,000 records of at most 2 kB; whatever is larger is not one
_MAX_FILE_BYTES = 64 << 20
# a line has 800 bytes, and there is one every five minutes: ten years of them
_MAX_WITNESS_BYTES = 1 << 30


@app.callback()
def _group() -> None:
    """Check an audit log, offline."""


@app.command("verify")
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
    report = verify_log(
        _files(folder),
        audit_keys,
        witness_lines=None if witness is None else read_bytes(witness, limit=_MAX_WITNESS_BYTES),
        witness_keys=None if witness is None else witness_keys,
    )
    show(_summary(report), as_json=as_json)
    if not report.ok:
        first = report.findings[0]
        place = f"{first.file}: " if first.file else ""
        # the hub has seen more than this folder holds: cut back, or copied before the witness file was
        hint = "of a running node copy the witness file first" if first.fault is Fault.ROLLED_BACK else ""
        raise IntegrityBroken(f"the audit log does not verify: {place}{first.detail}", hint=hint)
    for seam in report.seams:
        say(_told(seam))
    say("the audit log verifies")


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content in order of name: checkpoints are read before the records they cover, so that a log which
    grows meanwhile is never shorter than its checkpoints. What is no regular file is given without content."""
    try:
        found = {_named(entry): Path(entry.path) for entry in os.scandir(folder)}
    except OSError as error:
        raise UsageFault(f"cannot read {folder}: {error.strerror}") from error
    if "audit/" in found and not any(map(is_log_file, found)):
        raise UsageFault(f"{folder} is not the audit log's folder", hint=f"name the one inside it: {folder / 'audit'}")
    for name in sorted(found):
        yield name, b"" if name.endswith("/") else read_bytes(found[name], limit=_MAX_FILE_BYTES)


def _named(entry: os.DirEntry[str]) -> str:
    return entry.name if entry.is_file(follow_symlinks=False) else f"{entry.name}/"


def _told(seam: Seam) -> str:
    epoch, who = seam.epoch, "the witness" if seam.witnessed else "no witness"
    return (
        f"the log was set back: epoch {epoch.number} begins with record {seam.record}; of {epoch.before.size} records "
        f"witnessed before, it keeps the first {epoch.kept}; {who} has signed this epoch"
    )


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


def read_keys(path: Path) -> tuple[KeyRing, KeyRing]:
    """(audit keys, witness keys) from a file of `purpose hex` lines, or of one key alone."""
    check_not_private(path)
    found: dict[str, list[VerifyKey]] = {"audit": [], "witness": []}
    for line in read_text(path, limit=1 << 16).splitlines():
        purpose, _, text = line.strip().rpartition(" ")
        if not text or line.startswith("#"):
            continue
        if (purpose or "audit") not in found:
            raise UsageFault(f"{path} is no list of keys: lines are `audit <hex>` and `witness <hex>`")
        found[purpose or "audit"].append(VerifyKey.from_text(text))
    if not found["audit"]:
        raise UsageFault(f"{path} holds no audit key")
    return KeyRing(found["audit"]), KeyRing(found["witness"])

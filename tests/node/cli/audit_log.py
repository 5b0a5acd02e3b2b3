"""An audit log on the disk, as a node's state folder holds it: `audit/`, `audit-keys.txt`, `witness/witness.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mediator.audit import (
    RECORDS_PER_SEGMENT,
    AuditRecord,
    checkpoint_name,
    encode_checkpoint,
    encode_line,
    segment_name,
    sign_checkpoint,
    witness_checkpoint,
)
from mediator.tree import Frontier
from tests.mediator.samples import HUB, NOW, SITE
from tests.mediator.test_audit import NODE


def write(state: Path, records: Iterable[AuditRecord], covered: Sequence[int], witnessed: int = 0) -> Path:
    """The log of `records` below `state`, with a checkpoint at each size of `covered`; the newest one not above
    `witnessed` has a witness. Returns the log's folder."""
    folder = state / "audit"
    folder.mkdir(parents=True)
    (state / "witness").mkdir()
    (state / "audit-keys.txt").write_text(f"audit {NODE.verify_key.text}\nwitness {HUB.verify_key.text}\n")
    tree, lines, segment = Frontier(), [], 0
    signed: list[bytes] = []
    for record in records:
        line = encode_line(record)
        tree = tree.append(line[:-1])
        lines.append(line)
        if len(lines) == RECORDS_PER_SEGMENT:
            segment += 1
            (folder / segment_name(segment)).write_bytes(b"".join(lines))
            lines = []
        if tree.size in covered:
            checkpoint = sign_checkpoint(SITE, tree, NOW, NODE)
            (folder / checkpoint_name(tree.size)).write_bytes(encode_checkpoint(checkpoint))
            if tree.size <= witnessed:
                signed.append(encode_checkpoint(witness_checkpoint(checkpoint, None, HUB)))
    if lines:
        (folder / segment_name(segment + 1)).write_bytes(b"".join(lines))
    if signed:
        (state / "witness" / "witness.jsonl").write_bytes(b"".join(signed))
    return folder

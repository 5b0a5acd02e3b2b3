"""`cloister audit verify` on folders that are nearly the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediator.errors import IntegrityBroken, UsageFault
from node.cli.auditor.verify import verify
from tests.mediator.test_audit import record
from tests.node.cli import audit_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return audit_log.write(tmp_path / "copy", [record(number) for number in range(1, 8)], [5], witnessed=5)


def test_the_folder_above_the_log_is_told_from_a_changed_log(log: Path) -> None:
    keys = log.parent / "audit-keys.txt"
    verify(log, keys, log.parent / "witness" / "witness.jsonl")
    with pytest.raises(UsageFault, match="is not the audit log's folder") as caught:
        verify(log.parent, keys)
    assert str(log) in caught.value.hint


def test_folders_beside_files_are_read_in_order_of_their_names(log: Path) -> None:
    for name in ("a", "a-b", "checkpoint-000000000004.json.d", "segment-00000001.jsonl.d"):
        (log / name).mkdir()
    with pytest.raises(IntegrityBroken, match="4 files that are neither segment nor checkpoint"):
        verify(log, log.parent / "audit-keys.txt")

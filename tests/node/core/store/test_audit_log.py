"""The audit folder against the verifier that strangers use: nothing lost, nothing twice, nothing else in it."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mediator import audit
from mediator.audit import Action, Checkpoint, decode_checkpoint, witness_checkpoint
from mediator.audit_check import AuditReport, verify_log
from mediator.errors import IntegrityBroken, NotNow
from mediator.signatures import KeyRing, SigningKey
from node.core.store.audit_log import AuditLog
from node.core.store.store import Store, open_store
from tests.node.core.store.samples import KEY, NOW, RING, event

HUB = SigningKey(bytes(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audit").mkdir()
    (tmp_path / "witness").mkdir()
    return tmp_path / "audit"


@pytest.fixture
def exporting(store: Store, folder: Path) -> AuditLog:
    return started(store, folder)


def started(store: Store, folder: Path) -> AuditLog:
    log = AuditLog(store, folder, folder.parent / "witness" / "witness.jsonl")
    log.export()
    store.after_commit(log.export)
    return log


def checkpoint(store: Store) -> Checkpoint:
    with store.transaction(NOW) as tx:
        return tx.add_checkpoint("north", KEY, event=event(Action.CHECKPOINT, "checkpoint"))


def record(store: Store, count: int = 1) -> None:
    with store.transaction(NOW) as tx:
        for _ in range(count):
            tx.record(event=event())


def report(folder: Path) -> AuditReport:
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    witness = folder.parent / "witness" / "witness.jsonl"
    lines = witness.read_bytes() if witness.exists() else b""
    return verify_log(files, RING, witness_lines=lines or None, witness_keys=KeyRing([HUB.verify_key]))


def test_every_commit_is_exported_and_verifies(store: Store, folder: Path, exporting: AuditLog) -> None:
    record(store, 3)
    assert (folder / "segment-00000001.jsonl").read_bytes().count(b"\n") == 3
    assert checkpoint(store).size == 4
    record(store)
    found = report(folder)
    assert found.ok and (found.records, found.checkpointed, found.beyond) == (5, 4, 1)
    assert {path.name for path in folder.iterdir()} == {"segment-00000001.jsonl", "checkpoint-000000000004.json"}


def test_what_was_rolled_back_is_never_exported(store: Store, folder: Path, exporting: AuditLog) -> None:
    with pytest.raises(RuntimeError), store.transaction(NOW) as tx:
        tx.record(event=event())
        raise RuntimeError
    assert list(folder.iterdir()) == []


def test_witnessed_checkpoints_stand_in_their_file(store: Store, folder: Path, exporting: AuditLog) -> None:
    for _ in range(2):
        record(store)
        signed = checkpoint(store)
        with store.transaction(NOW) as tx:
            tx.add_witnessed(witness_checkpoint(signed, None, HUB), event=event(Action.CHECKPOINT))
    found = report(folder)
    assert found.ok and found.witnessed == 5
    assert (folder.parent / "witness" / "witness.jsonl").read_bytes().count(b"\n") == 2


def test_a_restart_continues_where_the_folder_ends(url: str, folder: Path) -> None:
    for new, size in ((5, 5), (2, 7)):
        store = open_store(url, NOW)
        record(store, new)
        assert started(store, folder).export() == size
        if size == 7:
            checkpoint(store)
        store.close()
    assert report(folder).ok and report(folder).records == 8


def test_a_torn_last_line_is_cut_and_written_again(store: Store, folder: Path) -> None:
    started(store, folder)
    record(store, 3)
    checkpoint(store)
    segment = folder / "segment-00000001.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-20])
    started(store, folder)
    assert segment.read_bytes() == whole and report(folder).ok


def test_a_lost_checkpoint_file_is_written_again(store: Store, folder: Path) -> None:
    started(store, folder)
    record(store, 3)
    checkpoint(store)
    (path,) = folder.glob("checkpoint-*")
    text = path.read_bytes()
    path.unlink()
    started(store, folder)
    assert path.read_bytes() == text and decode_checkpoint(text).size == 4


def test_a_torn_witness_line_is_cut_and_written_again(store: Store, folder: Path) -> None:
    started(store, folder)
    for _ in range(2):
        record(store)
        signed = checkpoint(store)
        with store.transaction(NOW) as tx:
            tx.add_witnessed(witness_checkpoint(signed, None, HUB), event=event(Action.CHECKPOINT))
    witness = folder.parent / "witness" / "witness.jsonl"
    whole = witness.read_bytes()
    witness.write_bytes(whole[:-30])
    started(store, folder)
    assert witness.read_bytes() == whole


def test_a_database_rolled_back_behind_its_folder_is_found(url: str, folder: Path, tmp_path: Path) -> None:
    store = open_store(url, NOW)
    record(store, 2)
    store.close()
    shutil.copy(tmp_path / "node.db", tmp_path / "old.db")
    store = open_store(url, NOW)
    started(store, folder)
    record(store, 2)
    store.close()
    before = (folder / "segment-00000001.jsonl").read_bytes()
    shutil.copy(tmp_path / "old.db", tmp_path / "node.db")
    for left in tmp_path.glob("node.db-*"):
        left.unlink()
    store = open_store(url, NOW)
    assert started(store, folder).ahead()
    record(store, 1)
    assert started(store, folder).export() == 0, "nothing is written over what happened since"
    assert (folder / "segment-00000001.jsonl").read_bytes() == before
    store.close()


def test_a_record_changed_in_the_folder_is_found_at_the_next_start(store: Store, folder: Path) -> None:
    started(store, folder)
    record(store, 3)
    segment = folder / "segment-00000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"core"', b'"c0re"', 1))
    with pytest.raises(IntegrityBroken):
        started(store, folder)


def test_a_missing_segment_is_found_at_the_next_start(store: Store, folder: Path) -> None:
    (folder / audit.segment_name(2)).write_bytes(b"")
    with pytest.raises(IntegrityBroken, match="missing"):
        started(store, folder)


def test_segments_are_full_before_the_next_begins(store: Store, folder: Path) -> None:
    with store.transaction(NOW) as tx:
        for _ in range(audit.RECORDS_PER_SEGMENT - 2):
            tx.record(event=event())
    started(store, folder)
    record(store, 5)
    checkpoint(store)
    sizes = [path.read_bytes().count(b"\n") for path in sorted(folder.glob("segment-*"))]
    assert sizes == [audit.RECORDS_PER_SEGMENT, 4] and report(folder).ok
    assert started(store, folder).export() == audit.RECORDS_PER_SEGMENT + 4


def test_a_full_disk_keeps_what_was_committed_and_is_made_good_later(store: Store, folder: Path) -> None:
    log = AuditLog(store, folder, folder.parent / "witness" / "witness.jsonl")
    record(store, 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))  # the disk is full in the middle of a line
    try:
        with pytest.raises(NotNow):
            log.export()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (folder / "segment-00000001.jsonl").stat().st_size == 300
    checkpoint(store)
    assert log.export() == 4
    assert report(folder).ok and report(folder).records == 4


def test_a_link_in_the_place_of_a_segment_is_not_followed(store: Store, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (folder / "segment-00000001.jsonl").symlink_to(tmp_path / "elsewhere")
    record(store)
    with pytest.raises(NotNow):
        AuditLog(store, folder, tmp_path / "witness" / "witness.jsonl").export()
    assert (tmp_path / "elsewhere").read_bytes() == b""


_WRITER = """
import sys
from pathlib import Path
from node.core.store.store import open_store
from tests.node.core.store.samples import NOW
from tests.node.core.store.test_audit_log import checkpoint, record, started
store = open_store(sys.argv[1], NOW)
started(store, Path(sys.argv[2]))
number = 0
while True:
    record(store, 3)
    if number % 5 == 0:
        checkpoint(store)
    number += 1
    print(number, flush=True)
"""


def test_a_copy_taken_while_the_node_writes_verifies_and_sigkill_loses_nothing(
    url: str, folder: Path, tmp_path: Path
) -> None:
    child = subprocess.Popen([sys.executable, "-c", _WRITER, url, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = 0
    for line in child.stdout:
        said = int(line)
        if said in (6, 12):
            copy = tmp_path / f"copy-{said}"
            copy.mkdir()
            # in order of name, as cp and tar go: checkpoints before the segments they are checked against
            for path in sorted(folder.iterdir()):
                shutil.copy(path, copy)
            found = report(copy)
            assert found.ok and found.records >= said * 3, found
        if said == 14:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = open_store(url, NOW)
    started(store, folder)
    checkpoint(store)
    with store.read() as reads:
        assert report(folder).ok and report(folder).records == reads.audit_size() >= said * 3
    store.close()

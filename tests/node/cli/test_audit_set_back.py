"""What the reading commands and proofs say of a log that was set back, and of signatures that nobody made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mediator.audit import (
    Action,
    Checkpoint,
    Epoch,
    checkpoint_name,
    encode_checkpoint,
    encode_line,
    segment_name,
    sign_checkpoint,
    witness_checkpoint,
)
from mediator.errors import IntegrityBroken, UsageFault
from node.cli.auditor.log_folder import Log
from node.cli.auditor.prove import check_proof, prove
from node.cli.auditor.query import find_log
from node.cli.auditor.reading import export, search, show_log, tail
from tests.mediator.samples import HUB, NOW, SITE
from tests.mediator.test_audit import NODE, record, tree
from tests.node.cli import audit_log

OLD = [encode_line(record(number, object=f"job-{number}")) for number in range(1, 10)]


def signed(lines: list[bytes], size: int, epoch: Epoch | None = None) -> Checkpoint:
    return sign_checkpoint(SITE, tree([line[:-1] for line in lines[:size]]), NOW, NODE, epoch)


def set_back(state: Path) -> tuple[Path, Checkpoint]:
    """A log that lost records 7 to 9 and went on up to 10, and its newest checkpoint; the hub knows the records of
    before."""
    first, last = signed(OLD, 4), signed(OLD, 9)
    epoch = Epoch(1, 4, last.head)
    opened = encode_line(record(7, action=Action.EPOCH_OPEN, object=epoch.object))
    lines = [*OLD[:6], opened, *(encode_line(record(number, object=f"later-{number}")) for number in (8, 9, 10))]
    folder = state / "audit"
    folder.mkdir(parents=True)
    (state / "witness").mkdir()
    (state / "audit-keys.txt").write_text(f"audit {NODE.verify_key.text}\nwitness {HUB.verify_key.text}\n")
    for checkpoint in (first, signed(lines, 9, epoch), newest := signed(lines, 10, epoch)):
        (folder / checkpoint_name(checkpoint.size)).write_bytes(encode_checkpoint(checkpoint))
    (folder / segment_name(1)).write_bytes(b"".join(lines))
    with (state / "witness" / "witness.jsonl").open("wb") as file:
        file.writelines(encode_checkpoint(witness_checkpoint(each, None, HUB)) for each in (first, last))
    return folder, newest


def test_every_reading_command_says_where_a_log_was_set_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, _ = set_back(tmp_path)
    for command in (show_log, tail, export, lambda at: search("job", at)):
        command(folder)
        told = " ".join(capfd.readouterr().err.split())
        assert "epoch 1 begins with record 7; of 9 records witnessed before, it keeps the first 4" in told, command
        assert "no witness has signed this epoch" in told


@pytest.mark.parametrize("witnessed", [False, True])
def test_a_proof_after_a_set_back_holds(tmp_path: Path, capfd: pytest.CaptureFixture[str], *, witnessed: bool) -> None:
    """The hub has signed another checkpoint over nine records."""
    folder, newest = set_back(tmp_path)
    if witnessed:
        with (tmp_path / "witness" / "witness.jsonl").open("ab") as file:
            file.write(encode_checkpoint(witness_checkpoint(newest, None, HUB)))
    prove(8, folder)
    (tmp_path / "proof.json").write_text(capfd.readouterr().out)
    check_proof(tmp_path / "proof.json", tmp_path / "audit-keys.txt")
    told = capfd.readouterr().err
    assert f"over {10 if witnessed else 9} records" in told and ("and no witness" in told) != witnessed


def test_only_a_checkpoint_whose_signature_was_checked_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = audit_log.write(tmp_path, [record(number) for number in range(1, 6)], [3, 5])
    show_log(folder, proof=True, unverified=True)
    assert capfd.readouterr().out.count("[not checked]") == 5
    forged = replace(signed(OLD, 3), signature="ab" * 64)
    (folder / checkpoint_name(3)).write_bytes(encode_checkpoint(forged))
    (folder / checkpoint_name(4)).write_bytes(b"{}")
    with pytest.raises(IntegrityBroken):
        show_log(folder, proof=True)
    out = capfd.readouterr().out
    assert out.count("[checkpoint 5]") == 5 and "[checkpoint 3]" not in out


def test_an_emptied_witness_file_beside_the_log_is_no_log_without_a_witness(tmp_path: Path) -> None:
    folder = audit_log.write(tmp_path, [record(1)], [1], witnessed=1)
    show_log(folder)
    (tmp_path / "witness" / "witness.jsonl").write_bytes(b"")
    with pytest.raises(IntegrityBroken, match="the witness's file holds no line"):
        show_log(folder)


def test_who_may_not_look_into_the_state_folder_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = audit_log.write(tmp_path, [record(1)], [1], witnessed=1)
    true = Path.is_file

    def closed(path: Path) -> bool:
        if path.name == "witness.jsonl":
            raise PermissionError(13, "Permission denied")
        return true(path)

    monkeypatch.setattr(Path, "is_file", closed)
    with pytest.raises(UsageFault, match="cannot read") as caught:
        find_log(folder, tmp_path, None, None, False)
    assert "run as root" in caught.value.hint
    assert isinstance(find_log(folder, tmp_path, None, None, True), Log)


def test_a_proof_with_what_is_no_text_is_a_broken_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prove(1, audit_log.write(tmp_path, [record(1)], [1]))
    told = json.loads(capfd.readouterr().out)
    for member in ("record", "checkpoint", "witness"):
        (tmp_path / "proof.json").write_text(json.dumps(told | {member: "\ud800"}))
        with pytest.raises(IntegrityBroken, match="broken proof"):
            check_proof(tmp_path / "proof.json", tmp_path / "audit-keys.txt")

"""The audit log of a running node, checked by `cloister audit verify` as a data protection officer would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mediator.audit import decode_checkpoint, encode_checkpoint, sign_checkpoint
from mediator.tree import Frontier
from node.host.keys import read_signing_key
from tests.end_to_end.commands import Done, attempt
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Permit

pytestmark = pytest.mark.engine
SEGMENT = "segment-00000001.jsonl"


@pytest.fixture(scope="module")
def node(house: House, rogue: Permit) -> Hospital:
    """A node with a log of some length, witnessed by the hub at several lengths."""
    hospital = house.hospitals[0]
    house.hub.ended(house.begin("audited", rogue, hospital, misbehave="none"))
    hospital.run("audit", "checkpoint")
    return hospital


def copied(node: Hospital, folder: Path) -> Path:
    """A copy, in order of name, as `cp DIR/* COPY/` makes it: checkpoints before the records they cover.

    The witness file goes first of all: what it names has to be there.
    """
    folder.mkdir()
    shutil.copyfile(node.state / "witness" / "witness.jsonl", folder.with_suffix(".witness"))
    for path in sorted(node.audit.iterdir()):
        shutil.copyfile(path, folder / path.name)
    return folder


def verify(node: Hospital, folder: Path, *, witness: bool = True) -> Done:
    beside = folder.with_suffix(".witness")
    words = ("--witness", beside if beside.exists() else node.verify_words[3]) if witness else ()
    return attempt("audit", "verify", folder, *node.verify_words[:2], *words, "--json")


def test_a_copy_taken_while_the_node_runs_verifies(house: House, node: Hospital, rogue: Permit, tmp_path: Path) -> None:
    run = house.begin("while-copied", rogue, node, misbehave="none")
    sizes = []
    for number in range(4):
        done = verify(node, copied(node, tmp_path / str(number)))
        assert done.code == 0, done
        report = done.json()
        assert report["ok"] and report["site"] == node.site and report["witnessed"] > 0 and not report["findings"]
        sizes.append(report["records"])
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1], "the log grew meanwhile"
    assert verify(node, node.audit).code == 0, "the live folder itself"
    house.hub.ended(run)


def lines(folder: Path) -> list[bytes]:
    return (folder / SEGMENT).read_bytes().splitlines(keepends=True)


def flip(folder: Path) -> None:
    raw = bytearray((folder / SEGMENT).read_bytes())
    raw[200] ^= 1
    (folder / SEGMENT).write_bytes(raw)


def remove(folder: Path) -> None:
    kept = lines(folder)
    (folder / SEGMENT).write_bytes(b"".join(kept[:4] + kept[5:]))


def reorder(folder: Path) -> None:
    kept = lines(folder)
    (folder / SEGMENT).write_bytes(b"".join([*kept[:4], kept[5], kept[4], *kept[6:]]))


def truncate(folder: Path) -> None:
    (folder / SEGMENT).write_bytes(b"".join(lines(folder)[:6]))


def retell(folder: Path) -> None:
    """A record changed in a way that is still a record."""
    kept = lines(folder)
    kept[4] = kept[4].replace(b'"verdict":"done"', b'"verdict":"refused"').replace(b'"allowed"', b'"refused"')
    (folder / SEGMENT).write_bytes(b"".join(kept))


def drop_checkpoints(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        path.unlink()


def swap_a_checkpoint(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("checkpoint-*"))
    second.write_bytes(first.read_bytes())


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (flip, "record_malformed root_mismatch"),
        (remove, "record_sequence"),
        (reorder, "record_sequence"),
        (truncate, "truncated"),
        (retell, "root_mismatch"),
        (lambda folder: (folder / "notes.txt").write_text("x"), "unknown_file"),
        (lambda folder: (folder / "deeper").mkdir(), "unknown_file"),
        (lambda folder: (folder / "segment-00000003.jsonl").write_text(""), "segment_missing"),
        (drop_checkpoints, "checkpoint_missing"),
        (swap_a_checkpoint, "checkpoint_malformed"),
    ],
)
def test_whatever_was_changed_is_found(
    node: Hospital, tmp_path: Path, harm: Callable[[Path], None], fault: str
) -> None:
    folder = copied(node, tmp_path / "copy")
    harm(folder)
    done = verify(node, folder, witness=False)
    done.fault(4, "does not verify")
    found = {finding["fault"] for finding in json.loads(done.out)["findings"]}
    assert found & set(fault.split()), found


def test_a_log_rolled_back_and_signed_again_by_the_node_itself_is_caught_by_the_witness_alone(
    node: Hospital, tmp_path: Path
) -> None:
    folder = copied(node, tmp_path / "copy")
    newest = decode_checkpoint(max(folder.glob("checkpoint-*")).read_bytes().rstrip(b"\n"))
    kept = lines(folder)[: newest.size - 3]
    (folder / SEGMENT).write_bytes(b"".join(kept))
    drop_checkpoints(folder)
    tree = Frontier()
    for line in kept:
        tree = tree.append(line.rstrip(b"\n"))
    owner = (node.state / "keys" / "audit.key").stat().st_uid
    key = read_signing_key(node.state / "keys" / "audit.key", owner=owner)
    signed = sign_checkpoint(node.site, tree, newest.time, key)
    (folder / f"checkpoint-{signed.size:012d}.json").write_bytes(encode_checkpoint(signed))
    assert verify(node, folder, witness=False).code == 0, "whole in itself"
    done = verify(node, folder)
    done.fault(4, "does not verify")
    assert {finding["fault"] for finding in json.loads(done.out)["findings"]} == {"rolled_back"}


def test_somebody_elses_key_verifies_nothing(house: House, node: Hospital) -> None:
    other = house.hospitals[1]
    done = attempt("audit", "verify", node.audit, *other.verify_words)
    done.fault(4, "does not verify")

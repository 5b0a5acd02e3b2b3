from __future__ import annotations

import random

import pytest

from mediator import audit_check
from mediator.audit import (
    RECORDS_PER_SEGMENT,
    Checkpoint,
    Frontier,
    WitnessedCheckpoint,
    checkpoint_name,
    encode_checkpoint,
    encode_line,
    segment_name,
    sign_checkpoint,
    witness_checkpoint,
)
from mediator.audit_check import AuditReport, Fault, verify_log
from mediator.signatures import KeyRing
from tests.mediator.samples import COMMITTEE, HUB, NOW, SITE, STRANGER
from tests.mediator.test_audit import NODE, record, tree

KEYS = KeyRing([NODE.verify_key])
WITNESSES = KeyRing([HUB.verify_key])
SEGMENT = segment_name(1)

Files = dict[str, bytes]


def _lines(count: int, salt: str = "job") -> list[bytes]:
    return [encode_line(record(number, object=f"{salt}-{number}")) for number in range(1, count + 1)]


def _checkpoint(lines: list[bytes], size: int) -> Checkpoint:
    return sign_checkpoint(SITE, tree([line[:-1] for line in lines[:size]]), NOW, NODE)


def _log(count: int = 12, sizes: tuple[int, ...] = (4, 9), salt: str = "job") -> Files:
    lines = _lines(count, salt)
    files = {checkpoint_name(size): encode_checkpoint(_checkpoint(lines, size)) for size in sizes}
    return files | {SEGMENT: b"".join(lines)}


def _witness(*signed: WitnessedCheckpoint) -> bytes:
    return b"".join(encode_checkpoint(line) for line in signed)


def _verify(files: Files, witness: bytes = b"", keys: KeyRing = KEYS, hubs: KeyRing | None = WITNESSES) -> AuditReport:
    return verify_log(sorted(files.items()), keys, witness_lines=witness, witness_keys=hubs)


def _faults(report: AuditReport) -> list[Fault]:
    return [finding.fault for finding in report.findings]


def test_an_honest_log_verifies_and_tells_what_lies_beyond() -> None:
    report = _verify(_log())
    assert report.ok
    assert (report.site, report.records, report.checkpointed, report.beyond) == (SITE, 12, 9, 3)
    assert not report.in_flight


def test_an_empty_folder_is_an_empty_log() -> None:
    assert _verify({}) == AuditReport("", 0, 0, 0, False, ())
    assert _verify({SEGMENT: b""}).ok


def test_every_flipped_byte_that_a_checkpoint_covers_is_found() -> None:
    honest = _log(count=5, sizes=(5,))
    seed = random.Random(7)
    for name, content in honest.items():
        for position in range(0, len(content), 3):
            changed = bytearray(content)
            changed[position] ^= 1 << seed.randrange(8)
            assert not _verify(honest | {name: bytes(changed)}).ok, (name, position)


def test_a_removed_record_is_found() -> None:
    lines = _lines(12)
    report = _verify(_log() | {SEGMENT: b"".join(lines[:5] + lines[6:])})
    assert _faults(report) == [Fault.RECORD_SEQUENCE, Fault.ROOT_MISMATCH]


def test_a_record_removed_and_the_rest_renumbered_is_found() -> None:
    forged = _lines(3) + [encode_line(record(number, object=f"job-{number + 1}")) for number in range(4, 12)]
    assert _faults(_verify(_log() | {SEGMENT: b"".join(forged)})) == [Fault.ROOT_MISMATCH, Fault.ROOT_MISMATCH]


def test_reordered_records_are_found() -> None:
    lines = _lines(12)
    lines[2], lines[3] = lines[3], lines[2]
    assert Fault.ROOT_MISMATCH in _faults(_verify(_log() | {SEGMENT: b"".join(lines)}))


def test_a_record_rewritten_in_another_spelling_is_found() -> None:
    lines = _lines(12)
    lines[0] = lines[0].replace(b":", b": ")
    assert Fault.RECORD_MALFORMED in _faults(_verify(_log() | {SEGMENT: b"".join(lines)}))


def test_a_truncated_log_is_found() -> None:
    report = _verify(_log() | {SEGMENT: b"".join(_lines(8))})
    assert _faults(report) == [Fault.TRUNCATED]
    assert report.beyond == 0
    assert _faults(_verify({name: raw for name, raw in _log().items() if name != SEGMENT})) == [Fault.TRUNCATED] * 2


def test_a_truncated_line_that_a_checkpoint_covers_is_found() -> None:
    content = b"".join(_lines(9))
    assert _faults(_verify(_log() | {SEGMENT: content[:-1]})) == [Fault.TRUNCATED]


def test_a_line_still_being_written_is_in_flight_and_not_broken() -> None:
    content = b"".join(_lines(12))
    report = _verify(_log() | {SEGMENT: content[:-20]})
    assert report.ok
    assert report.in_flight
    assert report.records == 11


@pytest.mark.parametrize(
    "name", ["notes.txt", "segment-1.jsonl", "segment-00000001.jsonl.bak", ".x", "checkpoint-9.json"]
)
def test_an_unknown_file_is_found_and_not_named(name: str) -> None:
    report = _verify(_log() | {name: b"x"})
    assert _faults(report) == [Fault.UNKNOWN_FILE]
    assert name not in repr(report)


def test_a_checkpoint_by_another_key_is_found() -> None:
    lines = _lines(12)
    forged = sign_checkpoint(SITE, tree([line[:-1] for line in lines]), NOW, STRANGER)
    report = _verify(_log() | {checkpoint_name(12): encode_checkpoint(forged)})
    assert _faults(report) == [Fault.CHECKPOINT_SIGNATURE]
    assert report.checkpointed == 9


def test_a_checkpoint_under_another_name_or_of_another_site_is_found() -> None:
    files = _log()
    moved = files | {checkpoint_name(5): files[checkpoint_name(4)]}
    assert _faults(_verify(moved)) == [Fault.CHECKPOINT_MALFORMED]
    foreign = sign_checkpoint("hospital-b", tree([line[:-1] for line in _lines(12)]), NOW, NODE)
    assert _faults(_verify(files | {checkpoint_name(12): encode_checkpoint(foreign)})) == [Fault.CHECKPOINT_MALFORMED]
    assert _faults(_verify(files | {checkpoint_name(9): b"{}"})) == [Fault.CHECKPOINT_MALFORMED]
    unended = files[checkpoint_name(9)].rstrip()
    assert _faults(_verify(files | {checkpoint_name(9): unended})) == [Fault.CHECKPOINT_MALFORMED]


def test_taking_all_checkpoints_away_does_not_make_a_log_valid() -> None:
    assert _faults(_verify({SEGMENT: _log()[SEGMENT]})) == [Fault.CHECKPOINT_MISSING]


def test_without_the_nodes_key_nothing_verifies() -> None:
    assert Fault.CHECKPOINT_SIGNATURE in _faults(_verify(_log(), keys=KeyRing()))


# --- the witness ----------------------------------------------------------------------------------------------


def _witnessed(size: int = 9, salt: str = "job") -> WitnessedCheckpoint:
    return witness_checkpoint(_checkpoint(_lines(12, salt), size), None, HUB)


def test_a_witnessed_log_verifies() -> None:
    report = _verify(_log(), _witness(_witnessed(4), _witnessed(9)))
    assert report.ok
    assert report.witnessed == 9


def test_a_log_cut_back_to_an_earlier_checkpoint_is_caught_by_the_witness_alone() -> None:
    rolled_back = _log(count=6, sizes=(4,))
    assert _verify(rolled_back).ok
    assert _faults(_verify(rolled_back, _witness(_witnessed(9)))) == [Fault.ROLLED_BACK]


@pytest.mark.parametrize("hubs", [WITNESSES, None], ids=["witness key given", "witness file trusted"])
def test_a_log_rewritten_and_signed_anew_by_the_node_is_caught_by_the_witness_alone(hubs: KeyRing | None) -> None:
    rewritten = _log(salt="story")
    assert _verify(rewritten).ok
    assert _faults(_verify(rewritten, _witness(_witnessed(9)), hubs=hubs)) == [Fault.ROLLED_BACK]


def test_a_node_cannot_witness_itself() -> None:
    own = witness_checkpoint(_checkpoint(_lines(12), 9), None, NODE)
    assert _faults(_verify(_log(), _witness(own))) == [Fault.WITNESS_SIGNATURE]


def test_a_witness_line_about_another_nodes_key_is_found() -> None:
    foreign = sign_checkpoint(SITE, Frontier(), NOW, COMMITTEE)
    assert _faults(_verify(_log(), _witness(witness_checkpoint(foreign, None, HUB)))) == [Fault.WITNESS_SIGNATURE]


def test_a_broken_witness_line_is_found() -> None:
    assert _faults(_verify(_log(), b"{}\n")) == [Fault.WITNESS_MALFORMED]
    assert _faults(_verify(_log(), _witness(_witnessed(9))[:-9])) == [Fault.WITNESS_MALFORMED]


# --- segments -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_lines() -> list[bytes]:
    return _lines(RECORDS_PER_SEGMENT + 3)


def _long(lines: list[bytes], size: int) -> Files:
    return {
        checkpoint_name(size): encode_checkpoint(_checkpoint(lines, size)),
        segment_name(1): b"".join(lines[:RECORDS_PER_SEGMENT]),
        segment_name(2): b"".join(lines[RECORDS_PER_SEGMENT:]),
    }


def test_a_log_of_several_segments(long_lines: list[bytes]) -> None:
    honest = _long(long_lines, RECORDS_PER_SEGMENT + 1)
    report = _verify(honest)
    assert report.ok
    assert report.beyond == 2
    gap = {name.replace("00002", "00003"): content for name, content in honest.items()}
    assert Fault.SEGMENT_MISSING in _faults(_verify(gap))
    short = honest | {segment_name(1): b"".join(long_lines[: RECORDS_PER_SEGMENT - 1])}
    assert {Fault.SEGMENT_LENGTH, Fault.RECORD_SEQUENCE, Fault.ROOT_MISMATCH} <= set(_faults(_verify(short)))
    overfull = {name: content for name, content in honest.items() if name != segment_name(2)}
    assert Fault.SEGMENT_LENGTH in _faults(_verify(overfull | {segment_name(1): b"".join(long_lines)}))
    unended = honest | {segment_name(1): honest[segment_name(1)][:-1]}
    assert Fault.SEGMENT_LENGTH in _faults(_verify(unended))


def test_files_are_given_in_order_of_name() -> None:
    with pytest.raises(ValueError, match="in order"):
        verify_log(sorted(_log().items(), reverse=True), KEYS)


def test_a_flood_of_faults_is_told_once_per_segment() -> None:
    report = _verify({SEGMENT: b"garbage\n" * 5000})
    assert _faults(report) == [Fault.RECORD_MALFORMED, Fault.CHECKPOINT_MISSING]


def test_the_faults_are_all_tested_here() -> None:
    with open(__file__) as source:
        text = source.read()
    assert [fault for fault in Fault if f"Fault.{fault.name}" not in text] == []
    assert audit_check.verify_log.__doc__

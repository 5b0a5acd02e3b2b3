from __future__ import annotations

import random

import pytest

from mediator import audit_check
from mediator.audit import (
    RECORDS_PER_SEGMENT,
    Action,
    Checkpoint,
    Epoch,
    LogHead,
    WitnessedCheckpoint,
    checkpoint_name,
    decode_checkpoint,
    encode_checkpoint,
    encode_line,
    segment_name,
    sign_checkpoint,
    witness_checkpoint,
)
from mediator.audit_check import AuditReport, Fault, Seam, verify_log
from mediator.signatures import KeyRing
from mediator.tree import Frontier
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


def _verify(
    files: Files, witness: bytes | None = None, keys: KeyRing = KEYS, hubs: KeyRing | None = WITNESSES
) -> AuditReport:
    return verify_log(sorted(files.items()), keys, witness_lines=witness, witness_keys=hubs)


def _faults(report: AuditReport) -> list[Fault]:
    return [finding.fault for finding in report.findings]


def test_an_honest_log_verifies_and_tells_what_lies_beyond() -> None:
    report = _verify(_log())
    assert report.ok
    assert (report.site, report.records, report.checkpointed, report.beyond) == (SITE, 12, 9, 3)
    assert not report.in_flight


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


def test_unknown_files_are_one_finding_with_their_number() -> None:
    report = _verify(_log() | dict.fromkeys(("a", "b", "c"), b"x"))
    assert _faults(report) == [Fault.UNKNOWN_FILE]
    assert report.findings[0].detail == "3 files that are neither segment nor checkpoint"


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


def test_an_empty_folder_does_not_verify() -> None:
    assert _faults(_verify({})) == [Fault.EMPTY]
    assert Fault.EMPTY in _faults(_verify({}, _witness(_witnessed(9))))


def test_an_empty_witness_file_proves_nothing_and_does_not_verify() -> None:
    assert _faults(_verify(_log(), b"")) == [Fault.WITNESS_MISSING]


# --- epochs ---------------------------------------------------------------------------------------------------

# The witness saw 4 and 9 records; the database of 6 was restored, and went on with record 7, which opens epoch 1.
SEAM = Epoch(1, 4, LogHead(0, 9, _checkpoint(_lines(12), 9).root))


def _restored(seam: Epoch = SEAM, epoch: Epoch | None = SEAM, salt: str = "job") -> Files:
    lines = [*_lines(6, salt), encode_line(record(7, action=Action.EPOCH_OPEN, object=seam.object))]
    lines += [encode_line(record(number, object=f"later-{number}")) for number in (8, 9, 10)]
    files = {checkpoint_name(4): encode_checkpoint(_checkpoint(lines, 4))}
    return files | {checkpoint_name(8): encode_checkpoint(_signed(lines, 8, epoch)), SEGMENT: b"".join(lines)}


def _signed(lines: list[bytes], size: int, epoch: Epoch | None) -> Checkpoint:
    return sign_checkpoint(SITE, tree([line[:-1] for line in lines[:size]]), NOW, NODE, epoch)


def _seen_later(files: Files) -> WitnessedCheckpoint:
    return witness_checkpoint(decode_checkpoint(files[checkpoint_name(8)]), None, HUB)


def test_a_restored_log_verifies_and_shows_its_seam() -> None:
    files = _restored()
    report = _verify(files, _witness(_witnessed(4), _witnessed(9), _seen_later(files)))
    assert report.ok
    assert report.seams == (Seam(7, SEAM, witnessed=True),)
    assert report.witnessed == 8


def test_an_epoch_that_no_witness_knows_is_shown_as_the_nodes_word() -> None:
    report = _verify(_restored(), _witness(_witnessed(4), _witnessed(9)))
    assert report.ok
    assert report.seams == (Seam(7, SEAM, witnessed=False),)


def test_a_seam_that_hides_what_the_log_says_it_kept_is_caught_by_the_witness() -> None:
    rewritten = _restored(salt="story")
    assert _verify(rewritten).ok
    assert _faults(_verify(rewritten, _witness(_witnessed(4), _witnessed(9)))) == [Fault.ROLLED_BACK]


def test_a_seam_that_names_less_than_the_witness_signed_is_caught() -> None:
    short = Epoch(1, 4, LogHead(0, 5, "ab" * 32))
    assert _faults(_verify(_restored(short, short), _witness(_witnessed(9)))) == [Fault.ROLLED_BACK]
    other = Epoch(1, 4, LogHead(0, 9, "ab" * 32))
    assert _faults(_verify(_restored(other, other), _witness(_witnessed(9)))) == [Fault.ROLLED_BACK]


def test_a_checkpoint_of_another_epoch_than_its_records_is_found() -> None:
    assert _faults(_verify(_restored(epoch=None))) == [Fault.EPOCH_MISMATCH]
    early = _restored() | {checkpoint_name(6): encode_checkpoint(_signed(_lines(6), 6, SEAM))}
    assert _faults(_verify(early)) == [Fault.EPOCH_MISMATCH]


def test_a_log_from_before_the_newest_epoch_is_caught_by_the_witness() -> None:
    restored = _restored()
    report = _verify(_log(), _witness(_witnessed(9), _seen_later(restored)))
    assert Fault.ROLLED_BACK in _faults(report)


def test_epochs_only_grow_and_begin_after_what_they_keep() -> None:
    lines = [*_lines(6), encode_line(record(7, action=Action.EPOCH_OPEN, object=SEAM.object))]
    again = encode_line(record(8, action=Action.EPOCH_OPEN, object=SEAM.object))
    late = Epoch(1, 9, LogHead(0, 9, "ab" * 32))
    for bad in ([*lines, again], [*_lines(6), encode_line(record(7, action=Action.EPOCH_OPEN, object=late.object))]):
        assert Fault.EPOCH_ORDER in _faults(_verify({SEGMENT: b"".join(bad)}))
    unnamed = [*_lines(6), encode_line(record(7, action=Action.EPOCH_OPEN, object="epoch/1"))]
    assert Fault.RECORD_MALFORMED in _faults(_verify({SEGMENT: b"".join(unnamed)}))


def test_a_log_that_was_set_back_twice_needs_every_seam_named() -> None:
    """Epoch 1 itself was lost: epoch 2 names it, and the witness's own lines of epoch 1 name epoch 0."""
    first = _restored()
    seen = _seen_later(first)
    second = Epoch(2, 4, LogHead(1, 8, seen.checkpoint.root))
    lines = [*_lines(5), encode_line(record(6, action=Action.EPOCH_OPEN, object=second.object))]
    files = {checkpoint_name(6): encode_checkpoint(_signed(lines, 6, second)), SEGMENT: b"".join(lines)}
    assert _verify(files, _witness(_witnessed(4), _witnessed(9), seen)).ok
    assert _faults(_verify(files, _witness(_witnessed(4), _witnessed(9)))) == [Fault.ROLLED_BACK]


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

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.audit import (
    MAX_CHECKPOINT_BYTES,
    MAX_LINE_BYTES,
    Action,
    AuditRecord,
    Epoch,
    LogHead,
    Verdict,
    checkpoint_name,
    decode_checkpoint,
    decode_line,
    decode_witness,
    encode_checkpoint,
    encode_line,
    epoch_of,
    segment_name,
    segment_of,
    sign_checkpoint,
    witness_checkpoint,
)
from mediator.audit_check import verify_log
from mediator.errors import IntegrityBroken, Malformed, UnsupportedVersion
from mediator.grammar import IDENTIFIER, MAX_INTEGER
from mediator.signatures import KeyRing, open_signed
from mediator.tree import Frontier, prove, proves
from mediator.types import Instruction, Kind, RunOrder
from tests.mediator import samples
from tests.mediator.samples import COMMITTEE, HUB, NOW, SITE, key

NODE = key("audit")


def record(sequence: int = 1, **changes: Any) -> AuditRecord:
    base = AuditRecord(sequence, NOW, "core", Action.TASK_ADMIT, "run-1/2/train/1", "lesions@2", Verdict.ALLOWED, "")
    return replace(base, **changes)


def tree(lines: list[bytes]) -> Frontier:
    grown = Frontier()
    for line in lines:
        grown = grown.append(line)
    return grown


def _rfc9162(leaves: list[bytes]) -> bytes:
    """The definition of RFC 9162 section 2.1.1, recursively, as the standard writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + _rfc9162(leaves[:split]) + _rfc9162(leaves[split:])).digest()


def test_a_line_is_canonical_and_has_no_free_text() -> None:
    assert encode_line(record()) == (
        b'{"action":"task_admit","actor":"core","code":"","kind":"cloister.audit","object":"run-1/2/train/1",'
        b'"permit":"lesions@2","sequence":1,"time":"2026-11-22T12:00:00Z","verdict":"allowed","version":1}\n'
    )
    assert decode_line(encode_line(record())[:-1]) == record()


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 0},
        {"actor": "Dr. House"},
        {"actor": ""},
        {"object": ""},
        {"object": "John Smith"},
        {"object": "DOE^JANE"},
        {"object": "line\nbreak"},
        {"object": "../etc/passwd"},
        {"object": "/data/scan.dcm"},
        {"object": "a" * 161},
        {"object": "1.2.840.113619.2.55.3"},
        {"object": "study:1.2.840.113619.2.55.3"},
        {"object": "2.25.329800735698586629295641978511506172918"},
        {"permit": "lesions"},
        {"permit": "lesions@0"},
        {"permit": "a permit@1"},
        {"code": "because"},
    ],
)
def test_what_could_name_a_patient_or_carry_text_cannot_be_recorded(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        record(**changes)


@pytest.mark.parametrize(
    "name",
    ["run-1/2/train/1", "sha256:" + "0" * 64, "job-12", "a3f1c2d4-1234-5678-9012-345678901234", "lesions@2", "24.0.7"],
)
def test_our_own_ids_can_be_recorded(name: str) -> None:
    assert record(object=name).object == name


# --- every document that opens can be written down ------------------------------------------------------------

# ids as researchers, committees and hospitals choose them: dates, versions and underscores among them
CHOSEN = ("lung-2026.11.26.1.2", "2026.11.26.1.2", "lung_2026", "v2.25.1", "a-1.2.3.4.5", "0.0.0.0.0.0", "9" * 64)
IDENTIFIERS = st.one_of(st.from_regex(IDENTIFIER, fullmatch=True), st.sampled_from(CHOSEN))
NUMBERS = st.one_of(st.integers(1, 9), st.just(MAX_INTEGER), st.integers(1, MAX_INTEGER))


def printed_and_read(**changes: Any) -> AuditRecord:
    """A record with these changes, as `cloister audit verify` reads it out of its segment."""
    written = record(**changes)
    files = {
        checkpoint_name(1): encode_checkpoint(sign_checkpoint(SITE, tree([encode_line(written)[:-1]]), NOW, NODE)),
        segment_name(1): encode_line(written),
    }
    assert verify_log(sorted(files.items()), KeyRing([NODE.verify_key])).ok
    return decode_line(files[segment_name(1)][:-1])


@given(name=IDENTIFIERS, permit=IDENTIFIERS, version=NUMBERS)
def test_whatever_a_run_order_may_be_called_can_be_recorded(name: str, permit: str, version: int) -> None:
    order = samples.order(run=name, permit=permit, permit_version=version)
    opened = open_signed(RunOrder, samples.RESEARCHER.sign(order), KeyRing([samples.RESEARCHER.verify_key])).document
    granted = f"{opened.permit}@{opened.permit_version}"
    for about in (f"run-order/{opened.run}", f"run/{opened.run}", f"releases/{opened.run}"):
        read = printed_and_read(object=about, permit=granted)
        assert (read.object, read.permit) == (about, granted)


@given(run=IDENTIFIERS, site=IDENTIFIERS, kind=st.sampled_from(Kind), round_=NUMBERS, attempt=NUMBERS)
def test_whatever_an_instruction_may_be_called_can_be_recorded(
    run: str, site: str, kind: Kind, round_: int, attempt: int
) -> None:
    asked = samples.instruction(run=run, site=site, task=kind, round=round_ - 1, attempt=attempt)
    asked = open_signed(Instruction, HUB.sign(asked), samples.HUB_RING).document
    for about in (asked.id, f"{asked.id}@{'f' * 64}", f"site/{asked.site}"):
        assert printed_and_read(object=about, actor=asked.site).object == about


@given(number=NUMBERS)
def test_whatever_a_revocation_list_may_be_numbered_can_be_recorded(number: int) -> None:
    assert printed_and_read(object=f"revocation-list/{number}").object == f"revocation-list/{number}"


@pytest.mark.parametrize(
    "about",
    [
        "study/1.2.840.113619.2.55.3",
        "ingest/1.2.840.113619.2.55.3",
        "run-orders/1.2.840.113619.2.55.3",
        "run-1/2/1.2.840.113619.2.55.3/1",
        "run-1/2/train/1@1.2.840.113619.2.55.3",
        "site/aachen/1.2.840.113619.2.55.3",
        "run/1.2.840.113619.2.55.3/1.2.840.113619.2.55.4",
        "file-2.25.329800735698586629295641978511506172918",
    ],
)
def test_a_uid_that_is_no_documents_own_id_cannot_be_recorded(about: str) -> None:
    """A study's UID names a patient. Where no id of a document stands, nothing that reads like one is written."""
    with pytest.raises(ValueError, match=r"."):
        record(object=about)


def test_a_record_of_an_unknown_version_or_action_is_refused() -> None:
    line = encode_line(record())[:-1]
    with pytest.raises(UnsupportedVersion):
        decode_line(line.replace(b'"version":1', b'"version":2'))
    with pytest.raises(Malformed):
        decode_line(line.replace(b"task_admit", b"task_dance"))


def test_the_longest_record_and_checkpoint_fit_their_limits() -> None:
    longest = record(
        sequence=(1 << 53) - 1,
        actor="a" * 64,
        object="b" * 160,
        permit="c" * 64 + "@123456789",
        action=max(Action, key=lambda action: len(action.value)),
        code="revocation_list_rolled_back",
        time=NOW.replace(microsecond=1),
    )
    assert len(encode_line(longest)) < MAX_LINE_BYTES
    signed = sign_checkpoint("s" * 64, Frontier((1 << 53) - 1, (b"x" * 32,)), NOW, NODE)
    assert len(encode_checkpoint(witness_checkpoint(signed, None, HUB))) < MAX_CHECKPOINT_BYTES


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_the_growing_tree_has_the_root_of_the_definition(leaves: list[bytes]) -> None:
    grown = tree(leaves)
    assert grown.root == _rfc9162(leaves).hex()
    assert grown.size == len(leaves)
    assert len(grown.peaks) == len(leaves).bit_count()


def test_a_checkpoint_is_signed_by_one_key_over_everything_in_it() -> None:
    signed = sign_checkpoint(SITE, tree([b"a", b"b"]), NOW, NODE)
    ring = KeyRing([NODE.verify_key])
    signed.verify(ring)
    assert decode_checkpoint(encode_checkpoint(signed)) == signed
    changes: list[dict[str, Any]] = [
        {"site": "other"},
        {"size": 3},
        {"root": "0" * 64},
        {"time": NOW.replace(year=2027)},
        {"key": COMMITTEE.key_id},
        {"signature": "0" * 128},
        {"signature": ""},
        {"signature": signed.signature.upper()},
    ]
    for changed in changes:
        with pytest.raises(IntegrityBroken):
            replace(signed, **changed).verify(ring)
    with pytest.raises(IntegrityBroken):
        signed.verify(KeyRing())


def test_a_log_has_no_negative_size() -> None:
    with pytest.raises(ValueError, match="size is not a whole number of 0"):
        replace(sign_checkpoint(SITE, Frontier(), NOW, NODE), size=-1)


def test_a_witness_signs_the_whole_checkpoint() -> None:
    signed = sign_checkpoint(SITE, tree([b"a"]), NOW, NODE)
    witnessed = witness_checkpoint(signed, None, HUB)
    ring = KeyRing([HUB.verify_key])
    witnessed.verify(ring)
    assert decode_witness(encode_checkpoint(witnessed)) == witnessed
    with pytest.raises(IntegrityBroken):
        replace(witnessed, checkpoint=replace(signed, size=0)).verify(ring)
    with pytest.raises(IntegrityBroken):
        witnessed.verify(KeyRing([NODE.verify_key]))


def test_a_witness_signs_no_rollback_and_no_second_history() -> None:
    one, two, fork = (sign_checkpoint(SITE, tree(lines), NOW, NODE) for lines in ([b"a"], [b"a", b"b"], [b"a", b"c"]))
    proof = prove(tree([b"a"]), [b"b"])
    assert witness_checkpoint(two, one, HUB, proof=proof).checkpoint == two
    assert witness_checkpoint(two, two, HUB).checkpoint == two
    for shown, previous in ((one, two), (fork, two), (replace(two, site="other"), two)):
        with pytest.raises(IntegrityBroken):
            witness_checkpoint(shown, previous, HUB)


def test_a_rewritten_history_that_grew_is_not_witnessed() -> None:
    """Longer than what was witnessed, signed by the node itself, and not the same beginning."""
    seen = sign_checkpoint(SITE, tree([b"a", b"b", b"c"]), NOW, NODE)
    lines = [b"a", b"x", b"c", b"d", b"e"]
    rewritten = sign_checkpoint(SITE, tree(lines), NOW, NODE)
    honest = prove(tree([b"a", b"b", b"c"]), [b"d", b"e"])
    for proof in ((), prove(tree(lines[:3]), lines[3:]), honest, ("zz",), honest * 30):
        with pytest.raises(IntegrityBroken, match="goes on"):
            witness_checkpoint(rewritten, seen, HUB, proof=proof)


def test_every_beginning_of_a_log_is_proven_and_nothing_else_is() -> None:
    lines = [str(number).encode() for number in range(40)]
    trees = [tree(lines[:size]) for size in range(41)]
    for old in range(41):
        for size in range(old, 41):
            proof = prove(trees[old], lines[old:size])
            assert proves(old, trees[old].root, size, trees[size].root, proof)
            if not 0 < old < size:
                assert proof == ()
                continue
            assert not proves(old, trees[old - 1].root, size, trees[size].root, proof)
            assert not proves(old, trees[old].root, size, trees[size - 1].root, proof)
            assert not proves(old, trees[old].root, size, trees[size].root, (*proof, "ab" * 32))
            assert not proves(old, trees[old].root, size, trees[size].root, proof[:-1])
            for at, node in enumerate(proof):
                turned = (*proof[:at], node[::-1], *proof[at + 1 :])
                assert not proves(old, trees[old].root, size, trees[size].root, turned)
    assert not proves(2, trees[2].root, 1, trees[1].root, ())


def test_a_witness_signs_a_new_epoch_that_names_what_it_saw_last() -> None:
    lines = [b"a", b"b", b"c", b"x"]
    seen = [sign_checkpoint(SITE, tree([b"a", b"b", b"c", b"d"][:size]), NOW, NODE) for size in (2, 4)]
    epoch = Epoch(1, 2, seen[1].head)
    opened = sign_checkpoint(SITE, tree(lines), NOW, NODE, epoch)
    proof = prove(tree(lines[:2]), lines[2:])
    assert witness_checkpoint(opened, seen[1], HUB, proof=proof, kept=seen[0]).checkpoint == opened
    nothing_kept = sign_checkpoint(SITE, tree(lines), NOW, NODE, replace(epoch, kept=0))
    assert witness_checkpoint(nothing_kept, seen[1], HUB).checkpoint == nothing_kept
    for bad, kept in (
        (replace(epoch, before=replace(epoch.before, size=3)), seen[0]),
        (replace(epoch, before=replace(epoch.before, root="ab" * 32)), seen[0]),
        (replace(epoch, kept=1), seen[0]),
        (epoch, None),
        (epoch, sign_checkpoint(SITE, tree([b"x", b"y"]), NOW, NODE)),
    ):
        shown = sign_checkpoint(SITE, tree(lines), NOW, NODE, bad)
        with pytest.raises(IntegrityBroken):
            witness_checkpoint(shown, seen[1], HUB, proof=proof, kept=kept)
    # an epoch that is over comes back no more, and two of one number are two logs
    later = sign_checkpoint(SITE, tree([*lines, b"y"]), NOW, NODE)
    other = sign_checkpoint(SITE, tree([*lines, b"y"]), NOW, NODE, replace(epoch, kept=1))
    for shown in (later, other):
        with pytest.raises(IntegrityBroken):
            witness_checkpoint(shown, opened, HUB, proof=prove(tree(lines), [b"y"]))


def test_an_epoch_is_read_from_its_record_and_from_no_other() -> None:
    epoch = Epoch(3, 17, LogHead(2, 40, "ab" * 32))
    written = record(object=epoch.object, action=Action.EPOCH_OPEN)
    assert epoch_of(decode_line(encode_line(written)[:-1])) == epoch
    assert epoch_of(record(object=epoch.object)) is None
    for bad in ("epoch/3", epoch.object.replace("epoch/3", "epoch/2"), epoch.object.replace("kept/17", "kept/41")):
        with pytest.raises(Malformed):
            epoch_of(record(object=bad, action=Action.EPOCH_OPEN))


def test_a_checkpoint_from_before_there_were_epochs_keeps_its_bytes() -> None:
    signed = sign_checkpoint(SITE, tree([b"a"]), NOW, NODE)
    assert b"epoch" not in encode_checkpoint(signed)
    assert decode_checkpoint(encode_checkpoint(signed)) == signed
    in_epoch = sign_checkpoint(SITE, tree([b"a"]), NOW, NODE, Epoch(1, 0, LogHead(0, 3, "ab" * 32)))
    assert decode_checkpoint(encode_checkpoint(in_epoch)) == in_epoch
    with pytest.raises(IntegrityBroken):
        replace(in_epoch, epoch=None).verify(KeyRing([NODE.verify_key]))


def test_records_find_their_segment() -> None:
    assert [segment_of(sequence) for sequence in (1, 10_000, 10_001, 20_000, 20_001)] == [1, 1, 2, 2, 3]
    assert segment_name(1) == "segment-00000001.jsonl"
    assert checkpoint_name(12) == "checkpoint-000000000012.json"
    assert checkpoint_name(12) < segment_name(1)

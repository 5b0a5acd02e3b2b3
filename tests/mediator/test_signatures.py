from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator import canonical
from mediator.errors import Code, Denied, Malformed, UnsupportedVersion
from mediator.grammar import MAX_SIGNED_BYTES
from mediator.signatures import KeyRing, SigningKey, VerifyKey, open_signed, peek_kind
from mediator.types import Instruction, RevocationList
from tests.mediator.samples import COMMITTEE, COMMITTEE_RING, STRANGER, instruction, revocations

TEXT = COMMITTEE.sign(revocations())


def _segment(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _forge(header: bytes, payload: bytes, key: SigningKey = COMMITTEE) -> str:
    """A JWS with any header at all, correctly signed."""
    head = f"{_segment(header)}.{_segment(payload)}"
    return f"{head}.{_segment(key.sign_bytes(head.encode()))}"


def _header(**changes: object) -> bytes:
    header = {"alg": "Ed25519", "kid": COMMITTEE.key_id, "typ": "cloister.revocation-list"} | changes
    return canonical.dumps({name: value for name, value in header.items() if value is not None})


PAYLOAD = canonical.encode(revocations())


def test_a_signed_document_opens_and_says_who_signed() -> None:
    signed = open_signed(RevocationList, TEXT, COMMITTEE_RING)
    assert (signed.document, signed.key_id, signed.text) == (revocations(), COMMITTEE.key_id, TEXT)
    assert _forge(_header(), PAYLOAD) == TEXT


def test_an_empty_ring_trusts_nobody() -> None:
    with pytest.raises(Denied) as caught:
        open_signed(RevocationList, TEXT, KeyRing())
    assert caught.value.reasons[0].code is Code.UNTRUSTED_KEY


def test_a_strangers_signature_is_untrusted() -> None:
    with pytest.raises(Denied) as caught:
        open_signed(RevocationList, STRANGER.sign(revocations()), COMMITTEE_RING)
    assert caught.value.reasons[0].code is Code.UNTRUSTED_KEY


def test_a_stranger_under_a_trusted_key_id_is_a_bad_signature() -> None:
    with pytest.raises(Denied) as caught:
        open_signed(RevocationList, _forge(_header(), PAYLOAD, STRANGER), COMMITTEE_RING)
    assert caught.value.reasons[0].code is Code.BAD_SIGNATURE


def test_a_changed_payload_is_a_bad_signature() -> None:
    head, _, tail = TEXT.split(".")
    forged = f"{head}.{_segment(canonical.encode(revocations(permits=())))}.{tail}"
    with pytest.raises(Denied) as caught:
        open_signed(RevocationList, forged, COMMITTEE_RING)
    assert caught.value.reasons[0].code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    "header",
    [
        _header(alg="none"),
        _header(alg="EdDSA"),
        _header(alg="HS256"),
        _header(alg=None),
        _header(kid=None),
        _header(kid=7),
        _header(kid=["x"]),
        _header(typ=None),
        _header(typ="cloister.instruction"),
        _header(jwk={"kty": "OKP"}),
        _header(crit=["b64"], b64=False),
        _header(b64=False),
        _header().replace(b'":"Ed', b'": "Ed'),
        _header().replace(b'{"alg"', b'{"alg":"Ed25519","alg"'),
        json.dumps(dict(reversed(list(json.loads(_header()).items()))), separators=(",", ":")).encode(),
        b"[]",
        b"{}",
        b"",
        b"\xff",
    ],
)
def test_any_other_header_is_refused_though_it_is_signed(header: bytes) -> None:
    with pytest.raises(Malformed):
        open_signed(RevocationList, _forge(header, PAYLOAD), COMMITTEE_RING)


def test_a_signature_for_one_kind_never_opens_as_another() -> None:
    with pytest.raises(Malformed, match=r"not a signed cloister\.instruction"):
        open_signed(Instruction, TEXT, COMMITTEE_RING)
    mixed = _forge(_header(typ="cloister.instruction"), PAYLOAD)
    with pytest.raises(Malformed, match="kind is not"):
        open_signed(Instruction, mixed, COMMITTEE_RING)


def test_a_signed_document_of_an_unknown_version_is_told_as_such() -> None:
    with pytest.raises(UnsupportedVersion):
        open_signed(RevocationList, _forge(_header(), PAYLOAD.replace(b'"version":1', b'"version":2')), COMMITTEE_RING)


def test_a_signed_but_not_canonical_payload_is_refused() -> None:
    with pytest.raises(Malformed):
        open_signed(RevocationList, _forge(_header(), PAYLOAD.replace(b":5,", b": 5,")), COMMITTEE_RING)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", TEXT + "=", TEXT + "\n", " " + TEXT, TEXT + ".x", TEXT.replace(".", ".\n", 1), "é" + TEXT,
     "x" * (MAX_SIGNED_BYTES + 1)],
)  # fmt: skip
def test_what_is_no_compact_jws_is_refused(text: str) -> None:
    with pytest.raises((Malformed, Denied)):
        open_signed(RevocationList, text, COMMITTEE_RING)


@given(st.data())
def test_a_signed_document_has_one_spelling(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(TEXT) - 1))
    character = data.draw(st.sampled_from("ABCXYZabcxyz0189-_+/=. \n"))
    changed = TEXT[:position] + character + TEXT[position + 1 :]
    if changed != TEXT:
        with pytest.raises((Malformed, Denied)):
            open_signed(RevocationList, changed, COMMITTEE_RING)


def test_the_hash_of_a_document_is_the_same_whoever_signed_it() -> None:
    other = open_signed(RevocationList, STRANGER.sign(revocations()), KeyRing([STRANGER.verify_key]))
    assert other.sha256 == open_signed(RevocationList, TEXT, COMMITTEE_RING).sha256


def test_keys_rotate_with_overlap() -> None:
    both = KeyRing([COMMITTEE.verify_key, STRANGER.verify_key])
    for key in (COMMITTEE, STRANGER):
        assert open_signed(RevocationList, key.sign(revocations()), both).key_id == key.key_id


def test_a_ring_shows_key_ids_alone() -> None:
    assert repr(COMMITTEE_RING) == f"KeyRing({COMMITTEE.key_id})"


def test_a_private_key_does_not_show_in_its_repr() -> None:
    key = SigningKey(b"\x07" * 32)
    assert repr(key) == f"SigningKey({key.key_id})"


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, "0 " * 32, "AA" * 32])
def test_a_public_key_is_64_digits(text: str) -> None:
    with pytest.raises(Malformed):
        VerifyKey.from_text(text)


def test_a_public_key_file_may_end_with_a_line_end() -> None:
    assert VerifyKey.from_text(COMMITTEE.verify_key.text + "\n") == COMMITTEE.verify_key


def test_peeking_trusts_nothing_and_tells_the_kind() -> None:
    assert peek_kind(STRANGER.sign(instruction())) == "cloister.instruction"
    for text in ("", "x" * (MAX_SIGNED_BYTES + 1), _forge(_header(typ=None), PAYLOAD), _forge(_header(typ=1), PAYLOAD)):
        with pytest.raises(Malformed):
            peek_kind(text)


def test_the_wrong_size_is_no_key() -> None:
    with pytest.raises(Malformed):
        SigningKey(b"short")
    with pytest.raises(Malformed):
        VerifyKey(b"short")

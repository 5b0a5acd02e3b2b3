"""Frames and messages: strict on the way in, bounded on the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mediator.errors import Code, Denied, Ended, Malformed, NotNow, Reason, UnsupportedVersion
from node.ipc.messages import (
    CHUNK,
    END,
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_METADATA_BYTES,
    MESSAGE,
    VERSION,
    chunk_frames,
    pack,
    pack_error,
    unpack,
    unpack_error,
    upload_chunks,
    upload_frames,
)


@dataclass(frozen=True)
class Sample:
    name: str
    blob: bytes = b""


def frame(**members: object) -> bytes:
    return MESSAGE + VERSION + json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def test_a_message_survives_the_way() -> None:
    message = Sample(name="a", blob=b"\x00\xff")
    assert unpack(Sample, pack(message)) == message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"J2not json",
        CHUNK + b'2{"blob":"","name":"a"}',
        frame(name="a", blob="", extra=1),
        frame(name=7, blob=""),
        frame(name="a"),
        frame(name="a", blob="QQ"),
        frame(name="a", blob="QR=="),
        MESSAGE + VERSION + b'{"name":"a","blob":""}',
        MESSAGE + VERSION + b'{"blob":"","name":"a","name":"b"}',
        MESSAGE + VERSION + b'{"blob":"","name":"a"} ',
    ],
)
def test_a_frame_that_is_not_the_message_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(Sample, raw)


@pytest.mark.parametrize("version", [b"1", b"3", b""])
def test_an_unknown_or_missing_version_is_refused(version: bytes) -> None:
    with pytest.raises(UnsupportedVersion):
        unpack(Sample, pack(Sample(name="a")).replace(MESSAGE + VERSION, MESSAGE + version, 1))


def test_a_bad_value_is_not_repeated_in_the_error() -> None:
    with pytest.raises(Malformed) as caught:
        unpack(Sample, frame(name=["DOE^JANE"], blob=""))
    assert "DOE" not in str(caught.value) and "name" in str(caught.value)


def test_a_message_over_the_limit_is_refused_both_ways() -> None:
    with pytest.raises(Malformed, match="limit"):
        pack(Sample(name="x" * MAX_MESSAGE_BYTES))
    with pytest.raises(Malformed, match="limit"):
        unpack(Sample, frame(name="x" * MAX_MESSAGE_BYTES, blob=""))


def test_chunks_are_cut_to_size() -> None:
    sizes = [len(piece) - 1 for piece in chunk_frames([b"x" * (2 * MAX_CHUNK_BYTES + 1), b"", b"y"])]
    assert sizes == [MAX_CHUNK_BYTES, MAX_CHUNK_BYTES, 1, 1]


def test_an_upload_says_how_long_it_was() -> None:
    assert list(upload_chunks(iter(upload_frames([b"ab", b"c"])))) == [b"ab", b"c"]
    assert list(upload_chunks(iter(upload_frames([])))) == []


def test_an_upload_cut_short_is_refused() -> None:
    whole = list(upload_frames([b"ab", b"c"]))
    with pytest.raises(NotNow, match="broke off"):
        list(upload_chunks(iter(whole[:-1])))
    with pytest.raises(Malformed, match="another size"):
        list(upload_chunks(iter([whole[0], whole[-1]])))


@pytest.mark.parametrize("bad", [CHUNK, CHUNK + b"x" * (MAX_CHUNK_BYTES + 1), MESSAGE + b"{}", END + b"0x0"])
def test_a_wrong_frame_in_an_upload_is_refused(bad: bytes) -> None:
    with pytest.raises(Malformed):
        list(upload_chunks(iter([bad])))


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"code":"new","message":"","hint":""}', b"\xff"])
def test_an_error_nobody_can_read_is_internal(raw: bytes) -> None:
    assert unpack_error(raw).code == "internal_error"


def test_reasons_and_details_are_bounded() -> None:
    error = Denied([Reason(Code.TENSOR_SHAPE, "x" * 9999)] * 99)
    back = unpack_error(pack_error(error))
    assert isinstance(back, Denied) and len(back.reasons) == 20
    assert all(len(reason.detail) == 200 for reason in back.reasons)


@settings(deadline=None)
@given(st.text(st.characters(), max_size=4), st.sampled_from(["denied", "ended", "other"]))
@example("🫁", "denied")
@example("\x01", "denied")
@example("\ud800", "denied")
@example('"\\', "denied")
def test_no_error_is_larger_than_the_trailers_it_travels_in(text: str, kind: str) -> None:
    """Of whatever characters: one beyond the basic plane took twelve bytes, and the caller heard of no error at all."""
    many = text * 9999
    reason = Reason(Code.TENSOR_SHAPE, many)
    errors = {
        "denied": Denied([reason] * 99, hint=many), "ended": Ended(reason, hint=many), "other": NotNow(many, hint=many)
    }  # fmt: skip
    packed = pack_error(errors[kind])
    assert 4 * len(packed) / 3 + 1024 < MAX_METADATA_BYTES
    assert type(unpack_error(packed)) is type(errors[kind])


def test_an_end_crosses_with_its_reason() -> None:
    back = unpack_error(pack_error(Ended(Reason(Code.JOB_FAILED, "x" * 9999), hint="look")))
    assert isinstance(back, Ended) and back.hint == "look"
    assert back.reason == Reason(Code.JOB_FAILED, "x" * 200)

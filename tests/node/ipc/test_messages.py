"""Frames and messages: strict on the way in, bounded on the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from mediator.errors import Code, Denied, Malformed, NotNow, Reason, UnsupportedVersion
from node.ipc.messages import (
    CHUNK,
    END,
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
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

"""The keeper's words, parsed as if the job had written them."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.volumes import CODES, FRAME, MAGIC, RULES, parse_copy, parse_line
from mediator.errors import Code, Denied
from mediator.ports import JobEvent
from tests.containers.bench import LIMITS

END = FRAME.pack(b"E", 0, 0)


def frame(kind: bytes, name: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    return FRAME.pack(kind, len(name), len(content) if size is None else size) + name + content


def test_a_whole_copy_is_read() -> None:
    files = parse_copy(
        MAGIC + frame(b"F", b"metrics.json", b"{}") + frame(b"F", b"model.safetensors", b"m") + END, LIMITS
    )
    assert [(file.name, file.content) for file in files] == [("metrics.json", b"{}"), ("model.safetensors", b"m")]
    assert parse_copy(MAGIC + END, LIMITS) == ()


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"CLO2" + END,
        MAGIC,
        MAGIC + frame(b"F", b"metrics.json", b"{}"),
        MAGIC + END + b"x",
        MAGIC + END + END,
        MAGIC + frame(b"E", b"x"),
        MAGIC + frame(b"E", b"", b"", size=7),
        MAGIC + frame(b"X", b"metrics.json", b"{}") + END,
        MAGIC + frame(b"F", b"../metrics.json", b"{}") + END,
        MAGIC + frame(b"F", b"patients\n.csv", b"{}") + END,
        MAGIC + frame(b"F", b"metrics.json", b"{}") * 2 + END,
        MAGIC + frame(b"F", b"metrics.json", b"{}", size=1 << 62) + END,
        MAGIC + frame(b"F", b"metrics.json", b"{}", size=3) + END,
    ],
)
def test_a_stream_of_another_shape_is_refused(stream: bytes) -> None:
    with pytest.raises(Denied) as caught:
        parse_copy(stream, LIMITS)
    assert caught.value.reasons[0].code is Code.CONTRACT_VIOLATION
    assert "patients" not in str(caught.value)


def test_more_bytes_than_the_volume_holds_are_refused() -> None:
    small = dataclasses.replace(LIMITS, out_bytes=4)
    with pytest.raises(Denied):
        parse_copy(MAGIC + frame(b"F", b"metrics.json", b"12345") + END, small)


def test_a_violation_discards_the_files_before_it_and_names_a_rule() -> None:
    stream = MAGIC + frame(b"F", b"metrics.json", b"{}") + frame(b"V", b"hard_link")
    with pytest.raises(Denied, match=RULES["hard_link"]) as caught:
        parse_copy(stream, LIMITS)
    assert caught.value.reasons[0].code is Code.CONTRACT_HARD_LINK
    assert set(CODES.values()) < {code for code in Code if code.name.startswith("CONTRACT_")}


def test_an_unknown_rule_is_not_repeated() -> None:
    with pytest.raises(Denied) as caught:
        parse_copy(MAGIC + frame(b"V", b"Mrs. Smith"), LIMITS)
    assert "Smith" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_stream_breaks_the_parser(stream: bytes) -> None:
    for raw in (stream, MAGIC + stream):
        try:
            parse_copy(raw, LIMITS)
        except Denied:
            pass


def test_the_keepers_lines() -> None:
    assert parse_line(b'{"event":"done","task":3}') == JobEvent("done", task=3)
    assert parse_line(b'{"event":"progress","fraction":0.5,"task":3}') == JobEvent("progress", task=3, fraction=0.5)
    assert parse_line(b'{"event":"full"}') == JobEvent("out_full")


def test_an_exceptions_class_is_told_by_a_code_of_the_list() -> None:
    def heard(name: str) -> JobEvent:
        return parse_line(b'{"event":"failed","exception":%s,"task":3}' % name.encode())

    assert heard('"ValueError"') == JobEvent("failed", task=3, code=Code.RAISED_VALUE_ERROR)
    for strange in ('"Mrs. Smith"', '"other"', '"valueerror"', "7", "null", '["ValueError"]'):
        assert heard(strange) == JobEvent("failed", task=3, code=Code.RAISED_OTHER)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{}", b"[]", b"null", b'{"event":"done"}', b'{"event":"done","task":0}', b'{"event":"done","task":"1"}',
        b'{"event":"done","task":1000000}', b'{"event":"done","task":1,"name":"x"}', b'{"event":"exited","task":1}',
        b'{"event":"progress","fraction":1.5,"task":1}', b'{"event":"progress","fraction":NaN,"task":1}',
        b'{"event":"progress","fraction":true,"task":1}', b'{"event":"done","task":true}',
        b'{"event":"full"}' + b" " * 300, b"\xff", b"[" * 150,
    ],
)  # fmt: skip
def test_any_other_line_is_refused(line: bytes) -> None:
    with pytest.raises(Denied, match="contract_violation"):
        parse_line(line)

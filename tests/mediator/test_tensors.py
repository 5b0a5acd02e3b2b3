from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mediator import tensors
from mediator.errors import Code, Denied
from mediator.types import Dtype, TensorSpec

SPECS = (TensorSpec("a", (2,), Dtype.F32), TensorSpec("b", (), Dtype.I64), TensorSpec("c", (1, 2), Dtype.F64))
VALUES = {
    "a": np.array([1.5, -2.0], "<f4"),
    "b": np.array(-7, "<i8"),
    "c": np.array([[0.0, 1e300]], "<f8"),
}
RAW = tensors.encode(VALUES)


def _file(header: Any, body: bytes, pad: bytes = b"") -> bytes:
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + pad
    return struct.pack("<Q", len(text)) + text + body


def _parts(raw: bytes = RAW) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def _refused(raw: bytes, specs: tuple[TensorSpec, ...] = SPECS) -> list[Code]:
    with pytest.raises(Denied) as caught:
        tensors.parse(raw, specs)
    return [reason.code for reason in caught.value.reasons]


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes() for name in one
    )


# --- what passes ----------------------------------------------------------------------------------------------


def test_our_own_file_is_read_back() -> None:
    parsed = tensors.parse(RAW, SPECS)
    assert list(parsed) == ["a", "b", "c"]
    assert _equal(parsed, VALUES)
    assert not parsed["a"].flags.writeable


def test_the_safetensors_library_reads_what_we_write() -> None:
    assert _equal(safetensors.numpy.load(RAW), VALUES)


def test_we_read_what_the_safetensors_library_writes() -> None:
    written = safetensors.numpy.save(VALUES)
    assert written != RAW  # the library orders by dtype: the same values, another file
    assert _equal(tensors.parse(written, SPECS), VALUES)


def test_the_header_is_padded_so_that_tensors_lie_aligned() -> None:
    for length in range(1, 20):
        raw = tensors.encode({"x" * length: np.zeros(3, "<f8")})
        assert struct.unpack("<Q", raw[:8])[0] % 8 == 0


dtypes = st.sampled_from(["<f4", "<f8", "<i4", "<i8"])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,8}", fullmatch=True), max_size=4, unique=True))
    finite: dict[str, Any] = {"allow_nan": False, "allow_infinity": False, "allow_subnormal": False}
    made = {}
    for name in names:
        dtype = np.dtype(draw(dtypes))
        elements = hnp.from_dtype(dtype, **(finite if dtype.kind == "f" else {}))
        made[name] = tensors.flush(draw(hnp.arrays(dtype, draw(shapes), elements=elements)))
    return made


def _specs(values: dict[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, tuple(item.shape), tensors.dtype_of(item)) for name, item in values.items())


@given(models())
def test_parsing_an_encoded_model_gives_it_back(values: dict[str, Any]) -> None:
    raw = tensors.encode(values)
    parsed = tensors.parse(raw, _specs(values))
    assert _equal(parsed, values)
    assert tensors.encode(parsed) == raw


@settings(max_examples=400)
@given(st.data())
def test_a_mutated_file_never_passes_unless_it_says_exactly_what_its_tensors_say(data: st.DataObject) -> None:
    raw = bytearray(RAW)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["flip", "insert", "delete", "swap"]))
        if how == "flip":
            raw[position] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "insert":
            raw[position:position] = data.draw(st.binary(min_size=1, max_size=9))
        elif how == "delete":
            del raw[position : position + data.draw(st.integers(1, 9))]
        else:
            raw[position], raw[0] = raw[0], raw[position]
    try:
        parsed = tensors.parse(bytes(raw), SPECS)
    except Denied:
        return
    _, body = _parts(bytes(raw))
    assert len(body) == sum(spec.size_bytes for spec in SPECS)  # nothing behind or between the tensors
    assert [(item.shape, item.dtype) for item in parsed.values()] == [
        (item.shape, item.dtype) for item in VALUES.values()
    ]
    again = tensors.encode(parsed)  # what leaves has no bit but the values'
    assert len(again) == len(RAW)
    assert again[: len(RAW) - len(body)] == RAW[: len(RAW) - len(body)]


# --- attacks --------------------------------------------------------------------------------------------------


def test_bytes_hidden_behind_the_last_tensor() -> None:
    assert _refused(RAW + b"patient 17") == [Code.TRAILING_BYTES]
    assert _refused(RAW + b"\x00") == [Code.TRAILING_BYTES]


def test_bytes_hidden_in_a_gap_between_tensors() -> None:
    header, body = _parts()
    header["c"]["data_offsets"] = [24, 40]
    assert _refused(_file(header, body[:16] + b"smuggled" + body[16:])) == [Code.TENSOR_OFFSETS]


def test_bytes_hidden_before_the_first_tensor() -> None:
    header, body = _parts()
    for entry in header.values():
        entry["data_offsets"] = [position + 8 for position in entry["data_offsets"]]
    assert _refused(_file(header, b"smuggled" + body)) == [Code.TENSOR_OFFSETS]


def test_two_tensors_over_the_same_bytes() -> None:
    header, body = _parts()
    header["c"]["data_offsets"] = [0, 16]
    assert _refused(_file(header, body)) == [Code.TENSOR_OFFSETS]


def test_text_in_metadata() -> None:
    header, body = _parts()
    assert _refused(_file({"__metadata__": {"note": "patient 17"}} | header, body)) == [Code.METADATA_NOT_PERMITTED]
    assert _refused(_file({"__metadata__": {}} | header, body)) == [Code.METADATA_NOT_PERMITTED]


def test_an_extra_tensor_is_refused_and_its_name_goes_nowhere() -> None:
    header, body = _parts()
    header["patient_17"] = {"dtype": "F32", "shape": [1], "data_offsets": [32, 36]}
    with pytest.raises(Denied) as caught:
        tensors.parse(_file(header, body + b"\x00" * 4), SPECS)
    assert [reason.code for reason in caught.value.reasons] == [Code.TENSOR_NOT_PERMITTED]
    assert "patient" not in str(caught.value)


def test_a_missing_tensor() -> None:
    header, body = _parts()
    del header["c"]
    assert _refused(_file(header, body[:16])) == [Code.TENSOR_MISSING]


def test_a_key_that_stands_twice_at_any_depth() -> None:
    header, body = _parts()
    text = json.dumps(header)
    assert _refused(_file(text.replace("{", '{"a":1,', 1).encode(), body)) == [Code.HEADER_MALFORMED]
    assert _refused(_file(text.replace('"dtype"', '"dtype": "F32", "dtype"', 1).encode(), body)) == [
        Code.HEADER_MALFORMED
    ]


def test_a_header_larger_than_any_permit_needs() -> None:
    header, body = _parts()
    assert _refused(_file(header, body, pad=b" " * tensors.MAX_HEADER_BYTES)) == [Code.HEADER_TOO_LARGE]
    assert _refused(struct.pack("<Q", (1 << 64) - 1) + RAW[8:]) == [Code.HEADER_TOO_LARGE]
    length = len(json.dumps(header))
    exactly = _file(header, body, pad=b" " * (tensors.MAX_HEADER_BYTES - length))
    assert _equal(tensors.parse(exactly, SPECS), VALUES)


@pytest.mark.parametrize("raw", [b"", b"\x00" * 7, b"\x00" * 8, struct.pack("<Q", 99) + b"{}", RAW[:40]])
def test_a_truncated_file(raw: bytes) -> None:
    assert _refused(raw) == [Code.HEADER_MALFORMED]


def test_tensors_cut_short() -> None:
    assert _refused(RAW[:-1]) == [Code.TENSOR_OFFSETS]


@pytest.mark.parametrize(
    "header",
    [b"[]", b"7", b'"x"', b"null", b"\xff{}", b"\xef\xbb\xbf{}", b"{}{}", b" {}", b"{}\t", b"{}\x00", b'{"a":NaN}',
     b"[" * 100_000, b'{"a":' * 50_000, b'{"\\ud800":1', b'{"a":' + b"1" * 5000 + b"}"],
)  # fmt: skip
def test_a_header_that_is_not_one_strict_json_object(header: bytes) -> None:
    assert _refused(_file(header, b"")) == [Code.HEADER_MALFORMED]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"dtype": "F64"}, Code.TENSOR_DTYPE),
        ({"dtype": "f32"}, Code.TENSOR_DTYPE),
        ({"dtype": ["F32"]}, Code.TENSOR_DTYPE),
        ({"dtype": "BF16"}, Code.TENSOR_DTYPE),
        ({"shape": [1, 2]}, Code.TENSOR_SHAPE),
        ({"shape": [2.0]}, Code.TENSOR_SHAPE),
        ({"shape": ["2"]}, Code.TENSOR_SHAPE),
        ({"shape": [-2]}, Code.TENSOR_SHAPE),
        ({"shape": None}, Code.TENSOR_SHAPE),
        ({"shape": {"0": 2}}, Code.TENSOR_SHAPE),
        ({"shape": [1 << 63, 1 << 63, 2]}, Code.TENSOR_SHAPE),
        ({"data_offsets": [0]}, Code.TENSOR_OFFSETS),
        ({"data_offsets": [0, 8, 8]}, Code.TENSOR_OFFSETS),
        ({"data_offsets": [False, 8]}, Code.TENSOR_OFFSETS),
        ({"data_offsets": [0.0, 8]}, Code.TENSOR_OFFSETS),
        ({"data_offsets": [8, 0]}, Code.TENSOR_OFFSETS),
        ({"data_offsets": [-8, 0]}, Code.TENSOR_OFFSETS),
        ({"data_offsets": [0, 1 << 64]}, Code.TENSOR_OFFSETS),
        ({"note": "patient 17"}, Code.HEADER_MALFORMED),
    ],
)
def test_an_entry_that_is_not_the_permits(change: dict[str, Any], code: Code) -> None:
    header, body = _parts()
    header["a"] |= change
    assert _refused(_file(header, body)) == [code]


def test_a_true_is_not_a_one() -> None:
    header, body = _parts(tensors.encode({"a": np.zeros(1, "<f4")}))
    header["a"]["shape"] = [True]
    assert _refused(_file(header, body), (TensorSpec("a", (1,), Dtype.F32),)) == [Code.TENSOR_SHAPE]


def test_an_entry_that_is_no_object() -> None:
    header, body = _parts()
    header["a"] = [1, 2]
    assert _refused(_file(header, body)) == [Code.HEADER_MALFORMED]


def test_every_reason_is_told_at_once() -> None:
    header, body = _parts()
    del header["c"]
    header["x"] = {}
    header["a"] |= {"dtype": "F16", "shape": [3]}
    assert _refused(_file(header, body)) == [
        Code.TENSOR_MISSING, Code.TENSOR_NOT_PERMITTED, Code.TENSOR_DTYPE, Code.TENSOR_SHAPE
    ]  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_payload_is_no_number(value: float) -> None:
    header, _ = _parts()
    body = np.array([0, value], "<f4").tobytes() + np.array(1, "<i8").tobytes() + np.zeros(2, "<f8").tobytes()
    assert _refused(_file(header, body)) == [Code.NOT_FINITE]
    with pytest.raises(Denied):
        tensors.encode({"a": np.array([value], "<f4")})


def test_a_message_in_subnormals_and_signed_zeros_is_gone_after_encoding() -> None:
    for dtype in ("<f4", "<f8"):
        tiny = np.finfo(dtype).smallest_subnormal
        hidden = np.array([-0.0, 0.0, tiny, -tiny, 5 * tiny, np.finfo(dtype).tiny, -np.finfo(dtype).tiny], dtype)
        clean = tensors.flush(hidden)
        expected = np.array([0, 0, 0, 0, 0, np.finfo(dtype).tiny, -np.finfo(dtype).tiny], dtype)
        assert clean.tobytes() == expected.tobytes()
        assert tensors.encode({"a": hidden}) == tensors.encode({"a": expected})


def test_an_empty_schema_permits_an_empty_file_alone() -> None:
    assert tensors.parse(tensors.encode({}), ()) == {}
    assert _refused(RAW, ()) == [Code.TENSOR_NOT_PERMITTED]


def test_a_type_that_may_not_cross_is_not_encoded() -> None:
    for dtype in ("<f2", ">i4", "bool", "<u8", "<i2"):
        with pytest.raises(ValueError, match="may not cross"):
            tensors.encode({"a": np.zeros(1, dtype)})

"""safetensors, read as strictly as a permit can be and written in exactly one way.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes. The library reads leniently
(any `__metadata__`, any names); here nothing is understood that the permit does not name, because every byte that
is not understood is a place to hide something in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mediator import canonical
from mediator.errors import Code, Denied, Malformed, Reason
from mediator.sizes import MAX_HEADER_BYTES
from mediator.types import Dtype, TensorSpec

Array = npt.NDArray[Any]

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_ENTRY_KEYS = frozenset({"dtype", "shape", "data_offsets"})
_NUMPY: Mapping[Dtype, np.dtype[Any]] = {
    Dtype.F32: np.dtype("<f4"),
    Dtype.F64: np.dtype("<f8"),
    Dtype.I32: np.dtype("<i4"),
    Dtype.I64: np.dtype("<i8"),
}
_DTYPE = {numpy: dtype for dtype, numpy in _NUMPY.items()}


def parse(raw: bytes, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The tensors in `raw`, read-only views on it, in the order of `specs`. Raises `Denied` with every reason.

    1. A header of at most `MAX_HEADER_BYTES` that fits into the file.
    2. The header is UTF-8 JSON, one object, no duplicate keys at any depth, no NaN, padded with spaces alone.
    3. No `__metadata__`.
    4. Exactly the permit's names.
    5. Each entry holds dtype, shape and data_offsets, and dtype and shape are the permit's.
    6. Offsets run from 0 to the end of the file without gap or overlap, each tensor exactly shape × dtype bytes.
    7. Every number is finite.
    """
    header, start = _header(raw)
    if _METADATA in header:  # (3)
        raise Denied(Reason(Code.METADATA_NOT_PERMITTED, "a header with free text"))
    reasons = _names(header, specs)  # (4)
    for spec in specs:
        if spec.name in header:
            reasons += _entry(header[spec.name], spec)  # (5)
    if reasons:
        raise Denied(reasons)
    offsets = {spec.name: header[spec.name]["data_offsets"] for spec in specs}
    if reasons := _offsets(offsets, specs, len(raw) - start):  # (6)
        raise Denied(reasons)
    tensors = {spec.name: _view(raw, spec, start + offsets[spec.name][0]) for spec in specs}
    if infinite := [name for name, tensor in tensors.items() if not is_finite(tensor)]:  # (7)
        raise Denied(Reason(Code.NOT_FINITE, name) for name in infinite)
    return tensors


def encode(tensors: Mapping[str, Array]) -> bytes:
    """The one safetensors file for these values in this order: header and offsets in the mapping's order, which is the
    permit's for whatever `parse` returned; the header padded to 8 bytes.

    Sorted by name, the tenth layer of a model would come before the second (0, 1, 10, 2), and whoever reads a model as
    a list would exchange the two. Subnormals and −0.0 are written as 0.0: bits that no sum notices could carry a
    message. Raises `Denied` (`not_finite`) for what is not finite, `ValueError` for a dtype that may not cross.
    """
    header: dict[str, dict[str, Any]] = {}
    parts: list[bytes] = []
    offset = 0
    for name, values in tensors.items():
        tensor = flush(values)
        if not is_finite(tensor):
            raise Denied(Reason(Code.NOT_FINITE, name))
        end = offset + tensor.nbytes
        shape = [int(side) for side in tensor.shape]
        header[name] = {"data_offsets": [offset, end], "dtype": dtype_of(tensor).value, "shape": shape}
        parts.append(tensor.tobytes(order="C"))
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "little"), text, *parts])


def flush(tensor: Array) -> Array:
    """The tensor with subnormals and −0.0 as 0.0, of the same shape and dtype; integers as they are."""
    if not is_float(tensor):
        return tensor
    return np.where(np.abs(tensor) < np.finfo(tensor.dtype).tiny, np.zeros((), tensor.dtype), tensor)


def is_float(tensor: Array) -> bool:
    return tensor.dtype.kind == "f"


def is_finite(tensor: Array) -> bool:
    return bool(np.isfinite(tensor).all()) if is_float(tensor) else True


def dtype_of(tensor: Array) -> Dtype:
    """The safetensors type of an array. Raises `ValueError` for one that may not cross (or is big-endian)."""
    try:
        return _DTYPE[tensor.dtype]
    except KeyError as error:
        raise ValueError("an array of a type that may not cross") from error


def _header(raw: bytes) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset of the first tensor byte."""
    if len(raw) < _LENGTH_BYTES:
        raise Denied(Reason(Code.HEADER_MALFORMED, "shorter than its length field"))
    length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:  # (1)
        raise Denied(Reason(Code.HEADER_TOO_LARGE, f"over {MAX_HEADER_BYTES} bytes"))
    start = _LENGTH_BYTES + length
    if start > len(raw):
        raise Denied(Reason(Code.HEADER_MALFORMED, "the header reaches beyond the file"))
    try:  # (2)
        text = raw[_LENGTH_BYTES:start].rstrip(b" ")
        header = canonical.loads_foreign(text)
    except Malformed as error:
        raise Denied(Reason(Code.HEADER_MALFORMED, error.message)) from error
    # the library asks for the brace as the first byte: no leading space, and no trailing tab either
    if not isinstance(header, dict) or not text.startswith(b"{") or not text.endswith(b"}"):
        raise Denied(Reason(Code.HEADER_MALFORMED, "not one JSON object"))
    return header, start


def _names(header: Mapping[str, Any], specs: Sequence[TensorSpec]) -> list[Reason]:
    names = {spec.name for spec in specs}
    reasons = [Reason(Code.TENSOR_MISSING, spec.name) for spec in specs if spec.name not in header]
    if unknown := len(header.keys() - names):  # counted, not named: a name is as good a hiding place as a value
        reasons.append(Reason(Code.TENSOR_NOT_PERMITTED, f"{unknown} that the permit does not name"))
    return reasons


def _entry(entry: Any, spec: TensorSpec) -> list[Reason]:
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        return [Reason(Code.HEADER_MALFORMED, f"{spec.name}: dtype, shape and data_offsets, and nothing else")]
    reasons = []
    if entry["dtype"] != spec.dtype.value:
        reasons.append(Reason(Code.TENSOR_DTYPE, f"{spec.name} is not {spec.dtype.value}"))
    if not _integers(entry["shape"]) or entry["shape"] != list(spec.shape):
        reasons.append(Reason(Code.TENSOR_SHAPE, f"{spec.name} is not {list(spec.shape)}"))
    if not _integers(entry["data_offsets"]) or len(entry["data_offsets"]) != 2:
        reasons.append(Reason(Code.TENSOR_OFFSETS, f"{spec.name}: data_offsets are two whole numbers"))
    return reasons


def _offsets(offsets: Mapping[str, Sequence[int]], specs: Iterable[TensorSpec], available: int) -> list[Reason]:
    """`available` is the number of bytes behind the header. Python's integers cannot overflow here."""
    position = 0
    for spec in sorted(specs, key=lambda item: offsets[item.name][0]):
        begin, end = offsets[spec.name]
        if begin != position or end - begin != spec.size_bytes:
            return [Reason(Code.TENSOR_OFFSETS, f"{spec.name}: a gap, an overlap, or not shape × dtype bytes")]
        position = end
    if position > available:
        return [Reason(Code.TENSOR_OFFSETS, "the tensors reach beyond the file")]
    if position < available:
        return [Reason(Code.TRAILING_BYTES, "bytes behind the last tensor")]
    return []


def _view(raw: bytes, spec: TensorSpec, offset: int) -> Array:
    flat = np.frombuffer(raw, dtype=_NUMPY[spec.dtype], count=spec.count, offset=offset)
    return flat.reshape(spec.shape)


def _integers(value: Any) -> bool:
    # a JSON `true` is Python's 1, and 2.0 equals 2: neither is how a size is written
    return isinstance(value, list) and all(type(item) is int for item in value)

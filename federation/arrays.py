"""Tensors between their two encodings: `.npy` inside Flower's objects, safetensors everywhere else.

Stock Flower reads an `.npy` body with `numpy.load`, which ignores what follows the data and believes the header over
the metadata beside it. Both are places to hide bytes in, so both are refused here.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mediator.errors import Malformed
from mediator.types import Dtype

Array = npt.NDArray[np.generic]
Tensors = Mapping[str, Array]

# The tensor types that may cross (`mediator.types.Dtype`), as numpy spells them, little-endian.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
# The same by their names in a permit.
PERMITTED: Mapping[Dtype, np.dtype[Any]] = {
    Dtype.F32: DTYPES["float32"],
    Dtype.F64: DTYPES["float64"],
    Dtype.I32: DTYPES["int32"],
    Dtype.I64: DTYPES["int64"],
}
# numpy's own header is 128 bytes for every array of up to eight dimensions
MAX_NPY_HEADER_BYTES = 256


def write_npy(array: Array) -> bytes:
    """`.npy` bytes, format 1.0, C order, little-endian: what `numpy.save` writes, with nothing after the data."""
    target = io.BytesIO()
    plain = np.asarray(array, dtype=DTYPES[array.dtype.name], order="C")
    np.lib.format.write_array(target, plain, version=(1, 0), allow_pickle=False)
    return target.getvalue()


def read_npy(raw: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """The array in `raw`, which must be exactly what `write_npy` prints for this type and shape.

    The header is compared, never parsed: numpy's parser evaluates it as a Python literal, and raises a dozen classes of
    errors over a stranger's bytes. Nothing is allocated beyond a view of `raw`. Raises `Malformed`.
    """
    expected = DTYPES.get(dtype) if isinstance(dtype, str) else None
    if expected is None or len(shape) > 8 or any(type(side) is not int or side < 1 for side in shape):
        raise Malformed("a tensor of a type or shape that may not cross")
    count = math.prod(shape)
    begin = len(raw) - count * expected.itemsize
    if not 0 < begin <= MAX_NPY_HEADER_BYTES:
        raise Malformed("a tensor whose bytes are not what is said beside them")
    if raw[:begin] != _header(expected, shape):
        raise Malformed("a tensor with another .npy header than the canonical one")
    return np.frombuffer(raw, dtype=expected, count=count, offset=begin).reshape(shape)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The magic and header that `write_npy` prints before the data."""
    target = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, fields)
    return target.getvalue()

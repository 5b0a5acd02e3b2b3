"""How far one site may pull the model in one round: the norm of its update is bounded by the permit.

The update is (what the container returned − the model it was given), over all float tensors together, in
float64. Integer tensors (counters such as batch norm's `num_batches_tracked`) have no norm to bound and no place in
an average: they leave as they came in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from mediator.errors import Code, Denied, Reason
from mediator.release.noise import bytes_needed, standard_normals
from mediator.tensors import Array, flush, is_finite, is_float
from mediator.types import Dtype, TensorSpec

Float64 = npt.NDArray[np.float64]

# A float64 sum of 2^31 squares, added pairwise, is off by less than 1e-14 of itself. An update is scaled to one limit
# below the permit's and held to another between the two.
_SCALED = 1 - 2.0**-40
_CHECKED = 1 - 2.0**-41
# What is left to do after the first scaling is the work of numbers that became 0.0, and seldom anything.
_FURTHER = (1.0, *(1 - 2.0**-power for power in (30, 20, 10, 5, 2, 1)), 0.0)


def update_norm(output: Mapping[str, Array], given: Mapping[str, Array]) -> float:
    """L2 norm of the update over all float tensors, in float64; infinite when a difference overflows."""
    # scaled by the largest element, so that squares of large float64 values do not overflow
    peak = max((_peak(output[name], given[name]) for name in output if is_float(output[name])), default=0.0)
    if peak == 0.0 or not math.isfinite(peak):
        return peak
    total = sum(
        float(np.square(_difference(output[name], given[name]) / peak).sum())
        for name in output
        if is_float(output[name])
    )
    return peak * math.sqrt(total)


def clip(output: Mapping[str, Array], given: Mapping[str, Array], clip_norm: float) -> dict[str, Array]:
    """The model to release: `given` plus the update, the update scaled down to `clip_norm` where it is longer.

    1. Integer tensors are `given`'s.
    2. The norm is taken over the update as it came, in float64.
    3. Every element of the update is multiplied by min(1, limit / norm) and added back in float64; the limit is a
       trillionth below `clip_norm`, more than any sum of squares is off.
    4. Rounded to the tensor's dtype; an element that rounding moved away from `given` goes one step back.
    5. Subnormals and −0.0 become 0.0.
    6. The norm is taken again, of the very values that leave, and they are scaled further until it is within the limit:
       what is released is at most `clip_norm` long, not nearly. At the worst nothing of the update is left.

    `output` and `given` have the same names, shapes and dtypes. Raises `Denied` (`not_finite`).
    """
    factor = _factor(output, given, clip_norm)  # (2)
    for further in _FURTHER:  # (6)
        released = _scaled(output, given, factor * further)
        if update_norm(released, given) <= clip_norm * _CHECKED:
            return released
    return dict(given)


def _scaled(output: Mapping[str, Array], given: Mapping[str, Array], factor: float) -> dict[str, Array]:
    released = {}
    for name, tensor in output.items():
        if not is_float(tensor):
            released[name] = given[name]  # (1)
        elif factor == 1.0:
            released[name] = flush(tensor)
        else:
            step = _difference(tensor, given[name]) * factor  # (3)
            released[name] = flush(_add_inwards(given[name], step))  # (4), (5)
    return released


def clip_with_noise(
    output: Mapping[str, Array], given: Mapping[str, Array], clip_norm: float, multiplier: float, noise: bytes
) -> dict[str, Array]:
    """As `clip`, then Gaussian noise of deviation `multiplier` × `clip_norm` on every float element.

    `noise` is `noise_bytes(specs)` cryptographic random bytes, used in `output`'s order. The noise is added to
    the clipped update in float64, before the one rounding to the tensor's dtype. Raises `Denied` (`not_finite`),
    `ValueError` for any other number of bytes.
    """
    if len(noise) != sum(bytes_needed(tensor.size) for tensor in output.values() if is_float(tensor)):
        raise ValueError("not the number of random bytes this model needs")
    factor = _factor(output, given, clip_norm)
    released, position = {}, 0
    for name, tensor in output.items():
        if not is_float(tensor):
            released[name] = given[name]
            continue
        end = position + bytes_needed(tensor.size)
        normals = standard_normals(noise[position:end], tensor.size).reshape(tensor.shape)
        position = end
        step = _difference(tensor, given[name]) * factor + normals * (multiplier * clip_norm)
        with np.errstate(over="ignore"):
            released[name] = flush((given[name].astype(np.float64) + step).astype(tensor.dtype))
        if not is_finite(released[name]):
            raise Denied(Reason(Code.NOT_FINITE, f"{name}: with noise, beyond its type"))
    return released


def noise_bytes(specs: Iterable[TensorSpec]) -> int:
    """How many random bytes `clip_with_noise` uses: 8 for each float element, pairs made full."""
    return sum(bytes_needed(spec.count) for spec in specs if spec.dtype in (Dtype.F32, Dtype.F64))


def _factor(output: Mapping[str, Array], given: Mapping[str, Array], clip_norm: float) -> float:
    norm = update_norm(output, given)
    if not math.isfinite(norm):
        raise Denied(Reason(Code.NOT_FINITE, "the update overflows"))
    limit = clip_norm * _SCALED
    return 1.0 if norm <= limit else limit / norm


def _difference(output: Array, given: Array) -> Float64:
    with np.errstate(over="ignore"):
        return np.asarray(output, dtype=np.float64) - np.asarray(given, dtype=np.float64)


def _peak(output: Array, given: Array) -> float:
    return float(np.abs(_difference(output, given)).max(initial=0.0))


def _add_inwards(given: Array, step: Float64) -> Array:
    base = given.astype(np.float64)
    moved = (base + step).astype(given.dtype)
    outside = np.abs(moved.astype(np.float64) - base) > np.abs(step)
    return np.where(outside, np.nextafter(moved, given), moved)

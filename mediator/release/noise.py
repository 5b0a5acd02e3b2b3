"""Gaussian noise for permits with a privacy budget, from random bytes that the caller draws.

The bytes must come from a cryptographic generator: who can predict the noise can take it off again. Accounting is
the caller's, with dp-accounting.

What this does not defend against: the least significant bits of floating-point noise are not exactly Gaussian
(Mironov 2012, "On significance of the least significant bits for differential privacy"). Rounding to float32 after
the addition in float64 hides most of that, not provably all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BYTES_PER_NORMAL = 8
_UNIFORM_BITS = 53  # a float64 holds every multiple of 2^-53 in [0, 1)


def bytes_needed(count: int) -> int:
    """Random bytes for `count` normals: Box-Muller makes them in pairs."""
    return (count + count % 2) * BYTES_PER_NORMAL


def standard_normals(random_bytes: bytes, count: int) -> npt.NDArray[np.float64]:
    """`count` independent standard normals, (count,) float64, from `bytes_needed(count)` uniform random bytes.

    Box-Muller on 53-bit uniforms. The largest possible value is sqrt(2 · 53 · ln 2) = 8.57: the tail beyond it
    has probability 1e-17.
    """
    if len(random_bytes) != bytes_needed(count):
        raise ValueError("not the number of random bytes these normals need")
    words = np.frombuffer(random_bytes, dtype="<u8") >> np.uint64(64 - _UNIFORM_BITS)
    uniforms = words.astype(np.float64) * 2.0**-_UNIFORM_BITS
    radius = np.sqrt(-2.0 * np.log(uniforms[0::2] + 2.0**-_UNIFORM_BITS))  # (0, 1]: no log of zero
    angle = 2.0 * np.pi * uniforms[1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def accounted_multiplier(noise_multiplier: float) -> float:
    """The noise multiplier to account with, where two data sets are neighbours if one patient is *replaced*.

    Replacing a patient can turn a clipped update into its opposite: the distance is twice the clip norm, so that
    noise of multiplier m counts as m / 2. (Add-or-remove accounting with m itself would claim too much.)
    """
    return noise_multiplier / 2

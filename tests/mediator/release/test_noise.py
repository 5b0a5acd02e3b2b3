from __future__ import annotations

import math

import numpy as np
import pytest

from mediator.release.noise import accounted_multiplier, bytes_needed, standard_normals


def _normals(count: int, seed: int = 11) -> np.ndarray:
    return standard_normals(np.random.default_rng(seed).bytes(bytes_needed(count)), count)


def _cdf(value: float) -> float:
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


def test_moments_are_the_standard_normals() -> None:
    drawn = _normals(400_000)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn**3).mean()) < 0.02
    assert abs((drawn**4).mean() - 3) < 0.06


def test_the_distribution_is_the_standard_normals() -> None:
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by chance once in a thousand; the bytes are fixed
    drawn = np.sort(_normals(100_000))
    expected = np.array([_cdf(value) for value in drawn])
    steps = np.arange(1, len(drawn) + 1) / len(drawn)
    assert np.abs(steps - expected).max() < 1.95 / math.sqrt(len(drawn))


def test_the_two_of_a_pair_are_independent() -> None:
    drawn = _normals(200_000).reshape(2, -1)
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.01
    assert abs(np.corrcoef(drawn**2)[0, 1]) < 0.01


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_the_extreme_bytes_give_finite_numbers(byte: bytes) -> None:
    drawn = standard_normals(byte * bytes_needed(2), 2)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn).max() < 8.6


def test_an_odd_count_uses_a_full_pair() -> None:
    assert bytes_needed(3) == bytes_needed(4) == 32
    assert standard_normals(bytes(range(32)), 3).shape == (3,)
    assert standard_normals(b"", 0).shape == (0,)
    with pytest.raises(ValueError, match="number of random bytes"):
        standard_normals(b"\x00" * 24, 3)


def test_replacing_a_patient_moves_the_update_by_twice_the_norm() -> None:
    assert accounted_multiplier(1.2) == 0.6

"""Series as scanners make them: slices of one body, each a little unlike the one before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.sim.pictures import _smooth as smooth

Volume = npt.NDArray[np.int16]
SIZES = {"CT": 512, "MR": 320, "PT": 200}


def volume(kind: str, slices: int, seed: int, size: int = 0) -> Volume:
    """`slices` of a CT (HU), an MR (signal) or a PET (counts), `(slices, size, size)`."""
    size = size or SIZES[kind]
    random = np.random.default_rng([ord(kind[0]), seed])
    grains = [_grain(random, size, 0.8), _grain(random, size, 1.0), _grain(random, size, 1.4)]
    coarse = _grain(random, size, size / 40)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    ways = random.uniform(-0.5, 0.5, (14, 2)), random.uniform(-0.25, 0.25, (14, 2)), random.uniform(0.01, 0.16, 14)
    made = np.empty((slices, size, size), dtype=np.int16)
    for number in range(slices):
        along = 2 * number / max(1, slices - 1) - 1
        radius = np.hypot(x / (0.85 - 0.1 * along), y / (0.65 + 0.1 * along))
        inside = radius < 1
        organs = np.zeros_like(x)
        for at, way, large in zip(*ways, strict=True):
            near = np.hypot(x - at[0] - way[0] * along, y - at[1] - way[1] * along) < large
            organs[near] = 1 + at[0]
        ring = (radius > 0.84) & (radius < 0.93) & (np.sin(9 * np.arctan2(y, x) + 8 * along) > -0.2)
        noise = np.roll(grains[number % 3], tuple(random.integers(0, size, 2)), (0, 1))
        made[number] = _slice(kind, inside, organs, ring, np.roll(coarse, number, 0), noise)
    return made


def _slice(
    kind: str,
    inside: npt.NDArray[np.bool_],
    organs: npt.NDArray[np.float64],
    ring: npt.NDArray[np.bool_],
    coarse: npt.NDArray[np.float64],
    noise: npt.NDArray[np.float64],
) -> Volume:
    if kind == "CT":
        image = np.where(inside, 40 + 260 * (organs - 1) * (organs > 0) + 20 * coarse, -1000) + 25 * noise
        image[ring] += 700 + 150 * coarse[ring]
        return np.clip(image, -1024, 3071).astype(np.int16)
    if kind == "MR":
        image = np.where(inside, 350 + 400 * organs + 60 * coarse, 0) + 25 * noise
        image[ring] *= 0.2
        return np.abs(image).astype(np.int16)
    image = np.where(inside, 300 + 900 * organs**4 + 80 * coarse, 0)
    return np.clip(image + noise * np.sqrt(np.maximum(image, 1)) * 2, 0, 32767).astype(np.int16)


def _grain(random: np.random.Generator, size: int, sigma: float) -> npt.NDArray[np.float64]:
    field = smooth(random.normal(size=(size, size)), sigma)
    return np.asarray(field / field.std())

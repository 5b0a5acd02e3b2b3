"""Made-up scans: correlated noise, and in half of them a lesion that only a look at the picture finds.

Level, grain and offset of the noise are random per study. In a study with label 1 a lesion, a smooth local bump of
random position, size and contrast, stands in two neighbouring slices. Level and offset vary so much that mean and
variance of the images say nothing about the label; a small network that looks for the bump and takes the maximum
learns it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SIZE = 64
SLICES = 3
# Scanners differ: maker, model, kernel, offset in HU, and grain of the noise in pixels.
Scanner = tuple[str, str, str, float, float]
SCANNERS: tuple[Scanner, ...] = (
    ("SIEMENS", "SOMATOM Definition AS", "B30f", 0.0, 1.0),
    ("GE MEDICAL SYSTEMS", "LightSpeed VCT", "STANDARD", 25.0, 1.15),
    ("Philips", "Brilliance 64", "B", -20.0, 0.9),
    ("TOSHIBA", "Aquilion ONE", "FC08", 10.0, 1.05),
)


@dataclass(frozen=True)
class Scan:
    """One study: pixels (slices, rows, columns) int16 in HU, and its label 0 or 1."""

    pixels: npt.NDArray[np.int16]
    label: int


def make_scan(
    random: np.random.Generator, label: int, scanner: Scanner, *, slices: int = SLICES, size: int = SIZE
) -> Scan:
    """One study of `slices` square images of `size` pixels. The same generator state makes the same scan."""
    level = random.uniform(15.0, 60.0)
    offset = random.uniform(-100.0, 100.0) + scanner[3]
    volume = np.stack([_noise(random, scanner[4] * random.uniform(0.55, 0.95), size) for _ in range(slices)]) * level
    # the same bump relative to the noise, whatever its level: the eye (and the network) sees contrast to noise
    if label:
        volume += _lesion(random, level, slices, size)
    return Scan(np.clip(np.rint(volume + offset), -1024, 3071).astype(np.int16), label)


def _noise(random: np.random.Generator, grain: float, size: int) -> npt.NDArray[np.float64]:
    """(size, size) Gaussian noise of unit variance, correlated over about `grain` pixels."""
    frequency = np.fft.fftfreq(size)
    damping = np.exp(-2 * (np.pi * grain) ** 2 * (frequency[:, None] ** 2 + frequency[None, :] ** 2))
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal((size, size))) * damping).real
    return np.asarray(field / field.std())


def _lesion(random: np.random.Generator, level: float, slices: int, size: int) -> npt.NDArray[np.float64]:
    """(slices, size, size): a bump 2 to 3.5 pixels wide, 2.3 to 3.5 times the noise, in two neighbouring slices."""
    margin = min(10, size // 4)
    row, column = random.uniform(margin, size - margin, 2)
    width, contrast = random.uniform(2.0, 3.5), random.uniform(2.3, 3.5) * level
    y, x = np.mgrid[0:size, 0:size]
    bump = contrast * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))
    volume = np.zeros((slices, size, size))
    first = int(random.integers(0, max(1, slices - 1)))
    fading = np.array([1.0, random.uniform(0.6, 1.0)])[:, None, None]
    volume[first : first + 2] = bump * fading[: min(2, slices)]
    return volume

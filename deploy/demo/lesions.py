"""What each hospital of the demo sees, and the others do not: one kind of lesion, on one scanner.

A study is noise as `node.kit.scans` makes it. With label 1 a lesion of random place, size and contrast stands in two
neighbouring slices: a bright spot, a dark spot, or a striped patch as bright as its surroundings. Whoever learnt one
kind has learnt nothing of the two others; none of them shows in an image's mean or variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.demo.workplace import SITES
from node.kit.scans import SCANNERS, SIZE, SLICES, Scan, Scanner, make_scan

STRIPES = 6.0  # pixels from stripe to stripe: too fine for a filter that looks for spots
MARGIN = 10


@dataclass(frozen=True)
class Lesions:
    """One hospital's kind: what a person calls it, how far it stands out (in deviations of the noise), the scanner."""

    name: str
    least: float
    most: float
    scanner: Scanner


# The contrasts make the three about equally hard, so that no hospital's kind is learnt at the others' cost.
KINDS = dict(
    zip(
        SITES,
        (
            Lesions("bright spots", 3.3, 4.5, SCANNERS[0]),
            Lesions("dark spots", 3.6, 4.8, SCANNERS[1]),
            Lesions("striped patches", 3.4, 4.4, SCANNERS[2]),
        ),
        strict=True,
    )
)


def make_study(random: np.random.Generator, label: int, site: str) -> Scan:
    """One study as this hospital's scanner makes it; with label 1 it has a lesion of this hospital's kind."""
    kind = KINDS[site]
    healthy = make_scan(random, 0, kind.scanner).pixels.astype(np.float64)
    if not label:
        return Scan(healthy.astype(np.int16), 0)
    # to the noise, whatever its level: the eye (and the network) sees contrast to noise
    contrast = random.uniform(kind.least, kind.most) * float(healthy.std(axis=(1, 2)).mean())
    healthy += contrast * _lesion(random, kind.name)
    return Scan(np.clip(np.rint(healthy), -1024, 3071).astype(np.int16), 1)


def maker(site: str) -> Callable[[np.random.Generator, int, Scanner], Scan]:
    """What `tests.sim.cohort.write_cohort` draws this hospital's pictures with."""
    return lambda random, label, _scanner: make_study(random, label, site)


def _lesion(random: np.random.Generator, name: str) -> npt.NDArray[np.float64]:
    """(slices, rows, columns): a lesion of contrast 1 in two neighbouring slices, the second one weaker."""
    row, column = random.uniform(MARGIN, SIZE - MARGIN, 2)
    width, phase = random.uniform(2.0, 3.5), random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    away = (y - row) ** 2 + (x - column) ** 2
    picture = {
        "bright spots": lambda: np.exp(-away / (2 * width**2)),
        "dark spots": lambda: -np.exp(-away / (2 * width**2)),
        "striped patches": lambda: (
            np.exp(-away / (2 * (width + 1.5) ** 2)) * np.cos(2 * np.pi * (x - column) / STRIPES + phase)
        ),
    }[name]()
    volume = np.zeros((SLICES, SIZE, SIZE))
    first = int(random.integers(0, SLICES - 1))
    volume[first : first + 2] = picture * np.array([1.0, random.uniform(0.6, 1.0)])[:, None, None]
    return volume

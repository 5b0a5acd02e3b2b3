"""What each hospital sees: learnable, not by counting, and a pattern that the two others do not have."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.demo import troubles
from deploy.demo.lesions import KINDS, STRIPES, make_study
from deploy.demo.workplace import SITES
from node.kit.scans import SIZE
from tests.sim.test_cohort import auc

STUDIES = 240


def studies(site: str) -> tuple[list[np.ndarray], list[int]]:
    random = np.random.default_rng([7, SITES.index(site)])
    made = [make_study(random, number % 2, site) for number in range(STUDIES)]
    return [scan.pixels for scan in made], [scan.label for scan in made]


def spot(volume: np.ndarray) -> float:
    """The height of the largest bright spot, in deviations of the picture."""
    frequency = np.fft.fftfreq(SIZE)
    blur = np.exp(-2 * (np.pi * 3) ** 2 * (frequency[:, None] ** 2 + frequency[None, :] ** 2))
    smooth = np.fft.ifft2(np.fft.fft2((volume - np.median(volume)) / volume.std()) * blur).real
    return float(smooth.max())


def stripes(volume: np.ndarray) -> float:
    """The strongest patch of stripes as far apart as the demo's."""
    y, x = np.mgrid[-8:9, -8:9]
    wave = np.exp(-(x**2 + y**2) / 32) * np.exp(2j * np.pi * x / STRIPES)
    kernel = np.zeros((SIZE, SIZE), complex)
    kernel[:17, :17] = wave - wave.mean()
    spectrum = np.fft.fft2((volume - volume.mean()) / volume.std()) * np.fft.fft2(kernel)
    return float(np.abs(np.fft.ifft2(spectrum)).max())


DETECTORS = {"aster": spot, "birch": lambda volume: spot(-volume), "cedar": stripes}


def test_there_is_a_kind_and_a_scanner_for_every_hospital() -> None:
    assert list(KINDS) == list(SITES)
    assert len({kind.name for kind in KINDS.values()}) == len({kind.scanner[0] for kind in KINDS.values()}) == 3


@pytest.mark.parametrize("site", SITES)
def test_a_lesion_shows_to_who_knows_its_kind_and_hardly_to_who_knows_another(site: str) -> None:
    volumes, labels = studies(site)
    for knows, detect in DETECTORS.items():
        found = auc([detect(volume) for volume in volumes], labels)
        assert found > 0.93 if knows == site else found < 0.80, (site, knows, found)


@pytest.mark.parametrize("site", SITES)
def test_mean_and_variance_do_not_tell_it(site: str) -> None:
    volumes, labels = studies(site)
    for statistic in (np.mean, np.var):
        assert auc([statistic(volume) for volume in volumes], labels) < 0.60


def test_troubles_are_found_by_their_reasons_alone() -> None:
    assert troubles.found(dict.fromkeys(troubles.TROUBLES, 1)) == len(troubles.TROUBLES)
    assert troubles.found({"waveform": 9, "truncated": 1}) == 1
    assert troubles.found({}) == 0

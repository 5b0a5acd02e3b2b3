"""What each hospital has to begin with: generated labelled studies of its own kind, pydicom's sample files, and what is
planted among them: identifiers, and troubles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.demo import troubles
from deploy.demo.lesions import KINDS, maker
from deploy.demo.workplace import Account
from node.kit.scans import Scan, Scanner
from tests.sim.cohort import write_cohort
from tests.sim.planting import plant
from tests.sim.pydicom_files import copy_pydicom_files

PATIENTS = 110
PLANTED_AT_LEAST = 320
CLINICAL = "clinical.csv"
COLUMN = "lesion=0:1"
# of the labelled patients, by a key that is new in every demo: about 150 studies in all, and never near as few as 100
TEST_FRACTION = 0.38
IDENTIFIERS = "identifiers.txt"
Make = Callable[[np.random.Generator, int, Scanner], Scan]


@dataclass(frozen=True)
class Source:
    """One hospital's source folder: what was planted there, and of every generated study (label, mean, variance)."""

    site: str
    folder: Path
    planted: tuple[str, ...]
    statistics: tuple[tuple[int, float, float], ...]


def make_source(folder: Path, site: str, seed: int) -> Source:
    """Fill `folder`; equal arguments give equal files. Runs in a process of its own, one per hospital."""
    os.umask(0o022)
    folder.mkdir(mode=0o755)
    statistics: list[tuple[int, float, float]] = []
    write_cohort(folder, site, PATIENTS, seed, scanner=KINDS[site].scanner, make=_measured(maker(site), statistics))
    planted = plant(folder, count=PLANTED_AT_LEAST, seed=seed) + troubles.plant(folder / "troubles", site)
    copy_pydicom_files(folder / "pydicom")
    return Source(site, folder, tuple(planted), tuple(statistics))


def auc_of_statistics(sources: Iterable[Source]) -> dict[str, float]:
    """How well an image's mean or variance alone tells a lesion: each one's AUC, whichever way round is better."""
    table = np.array([row for source in sources for row in source.statistics])
    sick = table[:, 0] == 1
    found = {}
    for column, name in ((1, "mean"), (2, "variance")):
        difference = table[sick, column][:, None] - table[~sick, column][None, :]
        auc = float((difference > 0).mean() + 0.5 * (difference == 0).mean())
        found[name] = round(max(auc, 1 - auc), 4)
    return found


def _measured(make: Make, into: list[tuple[int, float, float]]) -> Make:
    """The same pictures, and of each one its label, mean and variance: measured as it is drawn, for reading every file
    back takes a second of each demo."""

    def measured(random: np.random.Generator, label: int, scanner: Scanner) -> Scan:
        scan = make(random, label, scanner)
        into.append((label, float(scan.pixels.mean()), float(scan.pixels.var())))
        return scan

    return measured


def write_identifiers(path: Path, sources: Iterable[Source]) -> list[str]:
    """Every planted identifier once, one per line, in a file only its owner can read; returns them."""
    identifiers = list(dict.fromkeys(token for source in sources for token in source.planted))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(identifiers) + "\n")
    return identifiers


def close_to_all_but(folder: Path, owner: Account) -> None:
    """Originals are intake's to read and nobody else's."""
    if owner.uid is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.uid, owner.uid, follow_symlinks=False)
    folder.chmod(0o700)

"""What each hospital has to begin with: generated labelled studies, pydicom's sample files, and planted identifiers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.workplace import Account
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


@dataclass(frozen=True)
class Source:
    """One hospital's source folder, what was planted there, and how many generated studies it holds."""

    site: str
    folder: Path
    studies: int
    planted: tuple[str, ...]


def make_source(folder: Path, site: str, seed: int) -> Source:
    """Fill `folder`; equal arguments give equal files. Runs in a process of its own, one per hospital."""
    os.umask(0o022)
    folder.mkdir(mode=0o755)
    studies = write_cohort(folder, site, PATIENTS, seed)
    planted = plant(folder, count=PLANTED_AT_LEAST, seed=seed)
    copy_pydicom_files(folder / "pydicom")
    return Source(site, folder, studies, tuple(planted))


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

"""What a dataset version costs: bytes of its manifest, time to make, read and mount it, and what one more study writes.

    python -m tests.bench.datasets [STUDIES] [FILES]

STUDIES studies of FILES files of 1 kB each are taken in and published, then one more; manifests alone are made for
12,484 and 1,000,000 studies.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mediator import canonical
from mediator.datasets import HeldStudy, decode_manifest, manifest_of
from mediator.types import DatasetFile
from node.core.datasets.publish import folder_of, publish_version, take_study
from node.host.versions import job_view
from tests.mediator.samples import NOW
from tests.node.core.handover import ACCOUNT, MADE_BY, PROJECT, study, write_table

TABLE = DatasetFile("clinical.parquet", 1000, "a" * 64)


class Rows:
    """What was measured, printed as it comes."""

    def __init__(self) -> None:
        self.table = Table("what", "seconds", "more")

    @contextmanager
    def time(self, what: str) -> Iterator[list[str]]:
        more, start = list[str](), time.perf_counter()
        yield more
        self.table.add_row(what, f"{time.perf_counter() - start:.2f}", ", ".join(more))


def invented(number: int) -> HeldStudy:
    name = hashlib.sha256(b"%d" % number).hexdigest()
    return HeldStudy(name[:32], name[32:], "train", 120, name, 120 << 19, MADE_BY)


def manifests(rows: Rows, count: int) -> None:
    studies = list(map(invented, range(count)))
    with rows.time(f"manifest of {count:,} studies, made") as more:
        raw = canonical.encode(manifest_of(ACCOUNT, studies, [TABLE], created=NOW, supersedes=None))
        more.append(f"{len(raw) / count:.0f} bytes a study, {len(raw) / 1e6:.1f} MB")
    with rows.time(f"manifest of {count:,} studies, read and its id checked"):
        decode_manifest(raw)


def files_of(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


def disk(rows: Rows, root: Path, studies: int, files: int) -> None:
    handover, datasets = root / "handover", root / "datasets"
    for number in range(studies + 1):
        folder = handover / study(number).folder
        folder.mkdir(parents=True)
        for name in range(1, files + 1):
            (folder / f"{name:04d}.dcm").write_bytes(f"{number} {name} ".encode().ljust(1024, b"."))
    tables = {"clinical.parquet": write_table(handover, range(studies + 1))}

    def take(number: int) -> HeldStudy:
        asked = study(number)
        record = take_study(handover / asked.folder, datasets / PROJECT, asked.study, files, MADE_BY)
        return HeldStudy(
            asked.study, asked.patient, asked.split, files, record.root, record.size_bytes, record.deidentification
        )

    with rows.time(f"{studies} studies of {files} files taken"):
        held = [take(number) for number in range(studies)]
    with rows.time("published"):
        publish_version(ACCOUNT, held, tables, datasets, created=NOW, supersedes=None)
    before = files_of(datasets)
    with rows.time("one more taken and published") as more:
        held.append(take(studies))
        manifest = publish_version(ACCOUNT, held, tables, datasets, created=NOW, supersedes=None)
        more.append(f"{files_of(datasets) - before} files written")
    with rows.time("mounted, one split of two") as more:
        view = job_view(datasets / folder_of(manifest), manifest, "train", ["lesion"], root / "data")
        more.append(f"{len(view.studies)} studies, {len(view.files)} files")


def main(studies: int = 500, files: int = 120) -> None:
    rows = Rows()
    with tempfile.TemporaryDirectory() as folder:
        disk(rows, Path(folder), studies, files)
    for count in (12_484, 1_000_000):
        manifests(rows, count)
    Console().print(rows.table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

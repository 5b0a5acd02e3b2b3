"""What intake hands over, made by hand: studies of numbered files, a table, a report. No DICOM: core never looks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from durable.reading_group import EVERYBODY, ReadingGroup
from mediator import canonical
from mediator.datasets import CLINICAL, HeldStudy, VersionAccount, account_of
from mediator.errors import CloisterError
from mediator.import_orders import IngestReport
from mediator.manifests import Deidentification, ManifestV2
from mediator.types import Study
from node.core.datasets.publish import publish_version, take_study
from node.core.imports.imports import Imports
from node.host.versions import read_report
from node.ipc import intake as words

MADE_BY = Deidentification("eucaim", "f" * 64, "4")
NEWER = Deidentification("eucaim", "e" * 64, "5")
PROJECT = "lesions"
ACCOUNT = VersionAccount("images", PROJECT, "alpha", MADE_BY, {"studies_in": 3}, {}, {"lesion": "double"})


def pseudonym(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def study(number: int) -> Study:
    name, split = pseudonym("study", number), ("train", "test")[number % 2]
    return Study(name, pseudonym("patient", number), split, f"studies/{name}", 2)  # type: ignore[arg-type]


def write_study(handover: Path, number: int, content: str = "") -> Path:
    """The folder of one study of two files; `content` makes them others."""
    folder = handover / study(number).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("0001.dcm", "0002.dcm"):
        (folder / name).write_bytes(f"{content} pixels of {number}, {name}".encode())
    return folder


def write_table(handover: Path, numbers: Sequence[int]) -> Path:
    rows = [study(number) for number in numbers]
    columns = {"study": [row.study for row in rows], "lesion": [float(number) for number in numbers]}
    pq.write_table(pa.table(columns), handover / CLINICAL)
    return handover / CLINICAL


def write_handover(handover: Path, numbers: Sequence[int], order: str) -> None:
    """A whole handover folder with its report."""
    handover.mkdir(parents=True)
    for number in numbers:
        write_study(handover, number)
    write_table(handover, numbers)
    report = IngestReport(
        order=order, site="alpha", project=PROJECT, dataset="images", profile=MADE_BY.profile,
        profile_fingerprint=MADE_BY.profile_fingerprint, engine_version=MADE_BY.engine_version,
        instances_in=2 * len(numbers), instances_published=2 * len(numbers), instances_excluded={},
        studies_in=len(numbers), studies_published=len(numbers), studies_excluded={}, columns={"lesion": "double"},
        clinical_refused={}, destroyed=0, studies=tuple(map(study, numbers)),
    )  # fmt: skip
    (handover / "report.json").write_bytes(canonical.encode(report))


def take(handover: Path, datasets: Path, number: int, made_by: Deidentification = MADE_BY) -> HeldStudy:
    """Take one study that was handed over."""
    asked = study(number)
    record = take_study(handover / asked.folder, datasets / PROJECT, asked.study, asked.instances, made_by)
    split: Literal["train", "test", "unlabelled"] = asked.split
    return HeldStudy(asked.study, asked.patient, split, 2, record.root, record.size_bytes, record.deidentification)


def publish(
    handover: Path, datasets: Path, *, created: datetime, supersedes: str | None = None, group: ReadingGroup = EVERYBODY
) -> ManifestV2:
    """Take everything in that an order's `handover` folder holds, and publish it as one version.

    Raises `IntegrityBroken` when the folder does not hold what its report says; then no version was published.
    """
    report = read_report(handover)
    account, held = account_of(report), []
    for study in report.studies:
        record = take_study(
            handover / study.folder,
            datasets / report.project,
            study.study,
            study.instances,
            account.deidentification,
            group,
        )
        held.append(
            HeldStudy(
                study=study.study,
                patient=study.patient,
                split=study.split,
                instances=study.instances,
                root=record.root,
                size_bytes=record.size_bytes,
                deidentification=record.deidentification,
            )
        )
    tables = {CLINICAL: handover / CLINICAL}
    return publish_version(account, held, tables, datasets, created=created, supersedes=supersedes)


def write_import(handover: Path, numbers: Sequence[int], name: str) -> None:
    """What an import's intake leaves for core when it is through, with the studies that it gives before."""
    write_handover(handover, numbers, name)
    for number in numbers:
        (handover / study(number).folder).rename(handover / study(number).study)
    (handover / "studies").rmdir()


def ready(name: str, number: int, studies: int, made_by: Deidentification = MADE_BY) -> words.StudyReady:
    """What intake says of one study."""
    asked = study(number)
    return words.StudyReady(name, studies, asked.study, asked.patient, asked.split, asked.instances, made_by)


def bring(imports: Imports, name: str, numbers: Sequence[int]) -> None:
    """Say all that intake says of an import, which ends as failed where core cannot take a study."""
    for stage in ("take_in", "deidentify"):
        assert imports.progress(words.IngestProgress(name, stage, 0, 1))  # type: ignore[arg-type]
    try:
        for number in numbers:
            assert imports.take(ready(name, number, len(numbers))) == "taken"
    except CloisterError as error:
        imports.ended(words.IngestEnd(name, 0, error=error.message))
        return
    imports.ended(words.IngestEnd(name, 2 * len(numbers)))

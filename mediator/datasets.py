"""What a dataset version is: a number computed from its files, and the part of it that one job may see."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from mediator import canonical
from mediator.audit import Frontier
from mediator.deid.orders import IngestReport
from mediator.errors import Code, Denied, Malformed, Reason
from mediator.types import DatasetFile, Manifest, Study

CLINICAL = "clinical.parquet"
MANIFEST = "manifest.json"
# A hundred thousand studies of a thousand slices would be more; such a set is several datasets.
MAX_MANIFEST_BYTES = 1 << 28
_STUDY = re.compile(r"[0-9a-f]{32}")


def version_id(files: Iterable[DatasetFile]) -> str:
    """The Merkle root (RFC 9162) over (path, size, SHA-256) of every file in the order of paths, as a digest.

    It covers the images and the clinical table, which holds the split; not the manifest, which holds the date.
    """
    tree = Frontier()
    for file in sorted(files, key=lambda file: file.path):
        tree = tree.append(canonical.dumps([file.path, file.size_bytes, file.sha256]))
    return f"sha256:{tree.root}"


def check_report(report: IngestReport) -> None:
    """Refuses a report whose studies are not named by pseudonyms, twice or out of place. Raises `Malformed`."""
    names = [study.study for study in report.studies]
    if len(set(names)) != len(names) or len(names) != report.studies_published:
        raise Malformed("an ingest report counts its studies wrongly")
    if report.studies_in != report.studies_published + sum(report.studies_excluded.values()):
        raise Malformed("an ingest report leaves studies unaccounted for")
    for study in report.studies:
        if not (_STUDY.fullmatch(study.study) and _STUDY.fullmatch(study.patient) and study.instances > 0):
            raise Malformed("a study of an ingest report is not named by a pseudonym")
        if study.folder != f"studies/{study.study}":
            raise Malformed("a study of an ingest report lies elsewhere")


def manifest_of(
    report: IngestReport, files: Iterable[DatasetFile], *, created: datetime, supersedes: str | None
) -> Manifest:
    """The manifest of the version these files make."""
    ordered = tuple(sorted(files, key=lambda file: file.path))
    counts: dict[str, int] = {
        "studies_in": report.studies_in,
        "instances_in": report.instances_in,
        "instances_excluded": sum(report.instances_excluded.values()),
        # a study is published without the files of it that were held back: each reason has its number
        **{f"instances_excluded.{reason}": number for reason, number in report.instances_excluded.items()},
    }
    return Manifest(
        dataset=report.dataset,
        project=report.project,
        site=report.site,
        dataset_version=version_id(ordered),
        created=created,
        supersedes=supersedes,
        profile=report.profile,
        profile_fingerprint=report.profile_fingerprint,
        engine_version=report.engine_version,
        counts={**counts, **_counts(report.studies)},
        excluded=report.studies_excluded,
        columns=report.columns,
        studies=report.studies,
        files=ordered,
    )


def view_of(manifest: Manifest, split: str, columns: Collection[str]) -> Manifest:
    """The manifest reduced to one split and some columns; its files are the images alone.

    Raises `Denied` for a column the dataset does not have.
    """
    if strange := sorted(set(columns) - set(manifest.columns)):
        raise Denied(Reason(Code.DATASET_NOT_PERMITTED, f"the dataset has no column {strange[0][:32]}"))
    studies = tuple(study for study in manifest.studies if study.split == split)
    folders = {study.folder for study in studies}
    return replace(
        manifest,
        counts=_counts(studies),
        excluded={},
        columns={name: manifest.columns[name] for name in sorted(columns)},
        studies=studies,
        files=tuple(file for file in manifest.files if file.path.rpartition("/")[0] in folders),
    )


def _counts(studies: Iterable[Study]) -> Mapping[str, int]:
    studies = tuple(studies)
    splits = Counter(study.split for study in studies)
    return {
        "studies": len(studies),
        "instances": sum(study.instances for study in studies),
        "patients": len({study.patient for study in studies}),
        **{split: splits[split] for split in ("train", "test", "unlabelled")},
    }

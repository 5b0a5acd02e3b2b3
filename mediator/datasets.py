"""What a dataset version is: a number computed from its content, and the part of it that one job may see.

Version 1 is a list of files. Version 2 is a list of studies, each named by the root over its own files, and of tables:
a study stands once on the disk, however many versions hold it, and one more study is one more line of the manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from mediator import canonical
from mediator.errors import Code, Denied, IntegrityBroken, Malformed, Reason, UsageFault
from mediator.import_orders import IngestReport
from mediator.manifests import AnyManifest, Deidentification, Leaf, ManifestV2, Split, StudyEntry, StudyRecord
from mediator.tree import Frontier
from mediator.types import DatasetFile, Manifest, Study

CLINICAL = "clinical.parquet"
MANIFEST = "manifest.json"
STUDY = "study.json"
# a study is about 160 bytes of a manifest: 1.6 million studies
MAX_MANIFEST_BYTES = 1 << 28
# a file is about 90 bytes of its study's record: 700,000 files
MAX_STUDY_BYTES = 1 << 26


# --- ids ----------------------------------------------------------------------------------------------------


def version_id(files: Iterable[DatasetFile]) -> str:
    """The id of a version 1: the Merkle root (RFC 9162) over (path, size, SHA-256) of every file in order of paths.

    It covers the images and the clinical table, which holds the split; not the manifest, which holds the date.
    """
    return f"sha256:{_root(_leaf(file) for file in sorted(files, key=lambda file: file.path))}"


def study_root(files: Iterable[DatasetFile]) -> str:
    """The Merkle root over (name, size, SHA-256) of a study's files in the order of names, in hex."""
    return _root(_leaf(file) for file in sorted(files, key=lambda file: file.path))


def _root(leaves: Iterable[Leaf]) -> str:
    tree = Frontier()
    for leaf in leaves:
        tree = tree.append(canonical.dumps(list(leaf)))
    return tree.root


def _leaf(file: DatasetFile) -> Leaf:
    return (file.path, file.size_bytes, file.sha256)


# --- reading ------------------------------------------------------------------------------------------------


def decode_manifest(raw: bytes) -> AnyManifest:
    """A manifest of either version. Raises `Malformed`, `UnsupportedVersion`.

    Raises `IntegrityBroken` for one of version 2 whose studies and tables are not those of the version it names.
    """
    plain = canonical.loads(raw, limit=MAX_MANIFEST_BYTES)
    if not isinstance(plain, dict) or plain.get("version") != ManifestV2.VERSION:
        return canonical.from_plain(Manifest, plain)
    manifest = canonical.from_plain(ManifestV2, plain)
    if manifest.dataset_version != f"sha256:{_root(manifest.leaves)}":
        raise IntegrityBroken("a manifest is not that of the version it names")
    return manifest


def decode_study(raw: bytes, entry_root: str) -> StudyRecord:
    """The record of the study with this root. Raises `Malformed`, `IntegrityBroken` for another study's, or changed."""
    record = canonical.decode(StudyRecord, raw, limit=MAX_STUDY_BYTES)
    if record.root != entry_root or _root(record.leaves) != entry_root:
        raise IntegrityBroken("a study is not what its version says")
    return record


def check_report(report: IngestReport) -> None:
    """Refuses a report whose studies are not named by pseudonyms, twice or out of place. Raises `Malformed`."""
    names = [study.study for study in report.studies]
    if len(set(names)) != len(names) or len(names) != report.studies_published:
        raise Malformed("an ingest report counts its studies wrongly")
    if report.studies_in != report.studies_published + sum(report.studies_excluded.values()):
        raise Malformed("an ingest report leaves studies unaccounted for")
    for study in report.studies:
        try:
            StudyEntry(study.study, study.patient, study.split, study.instances, "0" * 64)
        except ValueError as error:
            raise Malformed("a study of an ingest report is not named by a pseudonym") from error
        if study.folder != f"studies/{study.study}":
            raise Malformed("a study of an ingest report lies elsewhere")


# --- making -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldStudy:
    """A study that core holds on its disk, as a version takes it up."""

    study: str
    patient: str
    split: Split
    instances: int
    root: str
    size_bytes: int
    deidentification: Deidentification


@dataclass(frozen=True)
class VersionAccount:
    """What a manifest says beside its content: whose it is, and what became of everything that was taken in.

    `counts` and `excluded` are instances and studies that came in and were held back, by reason; among the counts, by
    keyword, elements that published files lack though the profile means to keep them, and by note, how files were read.
    """

    dataset: str
    project: str
    site: str
    deidentification: Deidentification
    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    columns: Mapping[str, str]


def account_of(report: IngestReport) -> VersionAccount:
    """A report as the account of the version it makes."""
    counts: dict[str, int] = {
        "studies_in": report.studies_in,
        "instances_in": report.instances_in,
        "instances_excluded": sum(report.instances_excluded.values()),
        # a study is published without the files of it that were held back: each reason has its number
        **{f"instances_excluded.{reason}": number for reason, number in report.instances_excluded.items()},
        **{f"values_missed.{one.keyword}": one.elements for one in report.missed},
        **{f"notes.{one.note}": one.files for one in report.notes},
    }
    made_by = Deidentification(report.profile, report.profile_fingerprint, report.engine_version)
    return VersionAccount(
        dataset=report.dataset,
        project=report.project,
        site=report.site,
        deidentification=made_by,
        counts=counts,
        excluded=report.studies_excluded,
        columns=report.columns,
    )


def study_record(files: Iterable[DatasetFile], deidentification: Deidentification) -> StudyRecord:
    """The record of a study of these files, their paths relative to it."""
    ordered = sorted(files, key=lambda file: file.path)
    return StudyRecord(study_root(ordered), deidentification, tuple(_leaf(file) for file in ordered))


def manifest_of(
    account: VersionAccount,
    studies: Iterable[HeldStudy],
    tables: Iterable[DatasetFile],
    *,
    created: datetime,
    supersedes: str | None,
    mixed: bool = False,
) -> ManifestV2:
    """The manifest of the version that these studies and tables make, in whatever order they come.

    Raises `UsageFault` for studies that were not all de-identified the same way, unless it was ordered `mixed`, and
    `Malformed` for a study or table that is named twice or by no pseudonym.
    """
    held = sorted(studies, key=lambda study: study.study)
    made_by = sorted({study.deidentification for study in held} or {account.deidentification})
    if len(made_by) > 1 and not mixed:
        raise UsageFault(
            f"the studies were de-identified in {len(made_by)} ways: profiles or engines differ",
            hint="take all of them in anew, or order a mixed version",
        )
    try:
        entries = [StudyEntry(each.study, each.patient, each.split, each.instances, each.root) for each in held]
        leaves = [entry.leaf for entry in entries]
        leaves += [("table", *_leaf(table)) for table in sorted(tables, key=lambda table: table.path)]
        return ManifestV2(
            dataset=account.dataset,
            project=account.project,
            site=account.site,
            dataset_version=f"sha256:{_root(leaves)}",
            created=created,
            supersedes=supersedes,
            deidentification=tuple(made_by),
            counts={**account.counts, **_counts(entries), "instance_bytes": sum(each.size_bytes for each in held)},
            excluded=account.excluded,
            columns=account.columns,
            leaves=tuple(leaves),
        )
    except ValueError as error:
        raise Malformed(str(error)) from error


# --- what a job sees ----------------------------------------------------------------------------------------


def view_of(manifest: AnyManifest, split: str, columns: Collection[str]) -> Manifest:
    """The manifest reduced to one split and some columns, in the one form that a job reads (contract 1).

    Its files are the images alone; of a version 2 there are none yet, its studies' records name them. Raises `Denied`
    for a column the dataset does not have.
    """
    if strange := sorted(set(columns) - set(manifest.columns)):
        raise Denied(Reason(Code.DATASET_NOT_PERMITTED, f"the dataset has no column {strange[0][:32]}"))
    whole = manifest if isinstance(manifest, Manifest) else _as_version_1(manifest)
    studies = tuple(study for study in whole.studies if study.split == split)
    folders = {study.folder for study in studies}
    return replace(
        whole,
        counts=_counts(studies),
        excluded={},
        columns={name: manifest.columns[name] for name in sorted(columns)},
        studies=studies,
        files=tuple(file for file in whole.files if file.path.rpartition("/")[0] in folders),
    )


def _as_version_1(manifest: ManifestV2) -> Manifest:
    made_by = manifest.deidentification
    return Manifest(
        dataset=manifest.dataset,
        project=manifest.project,
        site=manifest.site,
        dataset_version=manifest.dataset_version,
        created=manifest.created,
        supersedes=manifest.supersedes,
        profile=_together(each.profile for each in made_by),
        profile_fingerprint=_together(each.profile_fingerprint for each in made_by),
        engine_version=_together(each.engine_version for each in made_by),
        counts=manifest.counts,
        excluded=manifest.excluded,
        columns=manifest.columns,
        studies=tuple(
            Study(entry.study, entry.patient, entry.split, entry.folder, entry.instances) for entry in manifest.studies
        ),
        files=(),
    )


def _together(names: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(names))


def _counts(studies: Iterable[Study | StudyEntry]) -> Mapping[str, int]:
    studies = tuple(studies)
    splits = Counter(study.split for study in studies)
    return {
        "studies": len(studies),
        "instances": sum(study.instances for study in studies),
        "patients": len({study.patient for study in studies}),
        **{split: splits[split] for split in ("train", "test", "unlabelled")},
    }

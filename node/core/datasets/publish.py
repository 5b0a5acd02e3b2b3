"""Studies and versions come to lie on core's disk, each whole by one rename.

1. A study's files are copied once into a hidden folder as core's own (0444) and hashed while they are copied: what is
   named by the root is what was written, whatever happens to the handover meanwhile.
2. `study.json` joins them, everything is flushed, and one rename gives the folder the name of its root. The same files
   are the same study: it stands once, however many versions hold it.
3. A version is a folder with its tables and its manifest, made the same way. The same content is the same version.

Each step may be broken off anywhere and done again. What a crash leaves is hidden, or held by no version:
`removal.sweep` takes it away. Callers hold `Core.datasets_lock` until what they made is on record.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from durable.below import below
from durable.files import flush_folder
from durable.reading_group import EVERYBODY, ReadingGroup
from mediator import canonical
from mediator.datasets import (
    MANIFEST,
    STUDY,
    HeldStudy,
    VersionAccount,
    manifest_of,
    study_record,
)
from mediator.errors import IntegrityBroken
from mediator.grammar import INSTANCE
from mediator.manifests import AnyManifest, Deidentification, ManifestV2, StudyRecord
from node.host.versions import (
    STUDIES,
    VERSIONS,
    clear,
    copy_file,
    read_manifest,
    read_study,
    write_file,
)

_INSTANCE = re.compile(INSTANCE)


def take_study(
    source: Path,
    project_dir: Path,
    study: str,
    instances: int,
    deidentification: Deidentification,
    group: ReadingGroup = EVERYBODY,
) -> StudyRecord:
    """Take the study that lies in `source`, `instances` files, to `studies/<root>/` below its project; its record.

    `study` is its pseudonym; `source` and the folder it lies in are intake's to change; jobs of `group` may read what
    is taken, once it is shown to them. Raises `IntegrityBroken` when the folder holds anything else; then nothing was
    taken.
    """
    studies = _folder(project_dir / STUDIES)
    staging = studies / f".{study}.partial"
    clear(staging)
    try:
        staging.mkdir(mode=0o755)
        copied = [
            copy_file(source / name, staging / name, name, theirs=2, group=group) for name in _names(source, instances)
        ]  # (1)
        record = study_record(copied, deidentification)
        home = studies / record.root
        if home.is_dir():
            return read_study(project_dir, record.root)
        write_file(staging / STUDY, canonical.encode(record))  # (2)
        _show(staging, home)
        return record
    finally:
        clear(staging)


def publish_version(
    account: VersionAccount,
    studies: Iterable[HeldStudy],
    tables: Mapping[str, Path],
    datasets: Path,
    *,
    created: datetime,
    supersedes: str | None,
    mixed: bool = False,
) -> ManifestV2:
    """Publish these studies, taken before, and these tables (intake's files) by their names as one version; its
    manifest.

    Raises `IntegrityBroken` for a study that is not there, `UsageFault` for studies of several profiles or engines
    unless the version is `mixed`.
    """
    project_dir = datasets / account.project
    versions = _folder(project_dir / VERSIONS)
    staging = versions / f".{account.dataset}.partial"
    clear(staging)
    try:
        staging.mkdir(mode=0o755)
        copied = [copy_file(source, staging / name, name, theirs=1) for name, source in tables.items()]
        manifest = manifest_of(account, studies, copied, created=created, supersedes=supersedes, mixed=mixed)
        for entry in manifest.studies:
            _require(project_dir / STUDIES / entry.root / STUDY)
        version = datasets / folder_of(manifest)
        if version.is_dir():
            return _version_2(read_manifest(version))
        write_file(staging / MANIFEST, canonical.encode(manifest))
        _show(staging, version)  # (3)
        return manifest
    finally:
        clear(staging)


def folder_of(manifest: AnyManifest) -> str:
    """Where a version lies below `datasets/`: in its project, named by the hexadecimal digits of its id."""
    name = manifest.dataset_version.removeprefix("sha256:")
    return f"{manifest.project}/{VERSIONS}/{name}" if isinstance(manifest, ManifestV2) else f"{manifest.project}/{name}"


def _names(source: Path, instances: int) -> list[str]:
    try:
        with below(source.parents[1], *source.parts[-2:]) as folder:
            names = sorted(os.listdir(folder))
    except OSError:
        names = []
    if len(names) != instances or not names or not all(map(_INSTANCE.fullmatch, names)):
        raise IntegrityBroken("a handover folder does not hold what its report says")
    return names


def _folder(path: Path) -> Path:
    """A folder of core's alone, brought to the disk with the one it lies in."""
    if not path.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        flush_folder(path.parent)
        flush_folder(path.parent.parent)
    return path


def _show(staging: Path, home: Path) -> None:
    flush_folder(staging)
    staging.rename(home)
    flush_folder(home.parent)


def _require(path: Path) -> None:
    try:
        there = stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        there = False
    if not there:
        raise IntegrityBroken("a version is to hold a study that was not taken")


def _version_2(manifest: AnyManifest) -> ManifestV2:
    if not isinstance(manifest, ManifestV2):
        raise IntegrityBroken("a version's folder holds the manifest of another")
    return manifest

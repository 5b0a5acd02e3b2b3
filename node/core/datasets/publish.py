"""A handover folder becomes an immutable dataset version.

1. The report is read strictly; only the files it accounts for are looked for, none through a link.
2. Each file is copied once into a hidden folder as core's own (0444) and hashed while it is copied: what is named by
   the version is what was written, whatever happens to the handover meanwhile.
3. Everything is flushed to disk, then one rename makes the version visible. The same content is the same version.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from mediator import canonical
from mediator.datasets import CLINICAL, MANIFEST, manifest_of
from mediator.errors import IntegrityBroken
from mediator.types import DatasetFile, Manifest, Study
from node.host.versions import clear, copy_file, flush_folder, read_manifest, read_report, write_file

_INSTANCE = re.compile(r"[0-9]{4,9}\.dcm")


def publish(handover: Path, datasets: Path, *, created: datetime, supersedes: str | None = None) -> Manifest:
    """Publish what `handover` holds under `datasets/<project>/<version>/`; the manifest of the version.

    Raises `IntegrityBroken` when the folder does not hold what its report says; then nothing was published.
    """
    report = read_report(handover)  # (1)
    project = datasets / report.project
    project.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = project / f".{report.order}.partial"
    clear(staging)
    try:
        staging.mkdir(mode=0o755)
        files = [file for study in report.studies for file in _copy_study(handover, staging, study)]  # (2)
        files.append(copy_file(handover / CLINICAL, staging / CLINICAL, CLINICAL))
        manifest = manifest_of(report, files, created=created, supersedes=supersedes)
        version = datasets / folder_of(manifest)
        if version.is_dir():
            return read_manifest(version)
        write_file(staging / MANIFEST, canonical.encode(manifest))
        _flush_folders(staging)
        staging.rename(version)  # (3)
        flush_folder(project)
        return manifest
    finally:
        clear(staging)


def folder_of(manifest: Manifest) -> str:
    """Where a version lies below `datasets/`: its project, then the hexadecimal digits of its id."""
    return f"{manifest.project}/{manifest.dataset_version.removeprefix('sha256:')}"


def _copy_study(handover: Path, staging: Path, study: Study) -> list[DatasetFile]:
    source = handover / study.folder
    target = staging / study.folder
    target.mkdir(mode=0o755, parents=True)
    names = sorted(os.listdir(source)) if source.is_dir() and not source.is_symlink() else []
    if len(names) != study.instances or not all(map(_INSTANCE.fullmatch, names)):
        raise IntegrityBroken("a handover folder does not hold what its report says")
    return [copy_file(source / name, target / name, f"{study.folder}/{name}") for name in names]


def _flush_folders(top: Path) -> None:
    for folder, _below, _files in os.walk(top, topdown=False):
        flush_folder(Path(folder))

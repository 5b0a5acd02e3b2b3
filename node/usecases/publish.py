"""A handover folder becomes an immutable dataset version, and a version becomes the view one job may see.

1. The report is read strictly; only the files it accounts for are looked for, none through a link.
2. Each file is copied once into a hidden folder as core's own (0444) and hashed while it is copied: what is named by
   the version is what was written, whatever happens to the handover meanwhile.
3. Everything is flushed to disk, then one rename makes the version visible. The same content is the same version.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mediator import canonical
from mediator.datasets import CLINICAL, MANIFEST, MAX_MANIFEST_BYTES, check_report, manifest_of, view_of
from mediator.deid.orders import IngestReport
from mediator.errors import IntegrityBroken, Malformed
from mediator.types import DatasetFile, Manifest, Study

REPORT = "report.json"
_INSTANCE = re.compile(r"[0-9]{4,9}\.dcm")
_BLOCK = 1 << 20


def read_report(handover: Path) -> IngestReport:
    """The account of a handover folder. Raises `IntegrityBroken`, `Malformed`."""
    report = canonical.decode(IngestReport, _read(handover / REPORT), limit=MAX_MANIFEST_BYTES)
    check_report(report)
    return report


def read_manifest(version_dir: Path) -> Manifest:
    """The manifest of a version or of a job's view. Raises `IntegrityBroken`, `Malformed`."""
    return canonical.decode(Manifest, _read(version_dir / MANIFEST), limit=MAX_MANIFEST_BYTES)


def publish(handover: Path, datasets: Path, *, created: datetime, supersedes: str | None = None) -> Manifest:
    """Publish what `handover` holds under `datasets/<project>/<version>/`; the manifest of the version.

    Raises `IntegrityBroken` when the folder does not hold what its report says; then nothing was published.
    """
    report = read_report(handover)  # (1)
    project = datasets / report.project
    project.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = project / f".{report.order}.partial"
    _clear(staging)
    try:
        staging.mkdir(mode=0o755)
        files = [file for study in report.studies for file in _copy_study(handover, staging, study)]  # (2)
        files.append(_copy(handover / CLINICAL, staging / CLINICAL, CLINICAL))
        manifest = manifest_of(report, files, created=created, supersedes=supersedes)
        version = datasets / folder_of(manifest)
        if version.is_dir():
            return read_manifest(version)
        _write(staging / MANIFEST, canonical.encode(manifest))
        _flush_folders(staging)
        staging.rename(version)  # (3)
        _flush(project)
        return manifest
    finally:
        _clear(staging)


def folder_of(manifest: Manifest) -> str:
    """Where a version lies below `datasets/`: its project, then the hexadecimal digits of its id."""
    return f"{manifest.project}/{manifest.dataset_version.removeprefix('sha256:')}"


def job_view(
    version_dir: Path,
    manifest: Manifest,
    split: Literal["train", "test", "unlabelled"],
    columns: Collection[str],
    into: Path,
) -> Manifest:
    """Make the folder a job sees as `/data`: hard links to one split's images, and the permit's columns of its rows.

    `into` must not exist. Returns the reduced manifest, which lies in the folder too. Raises `Denied` for a column the
    dataset does not have, `IntegrityBroken` when the version is not what its manifest says.
    """
    view = view_of(manifest, split, columns)
    into.mkdir()
    try:
        for study in view.studies:
            (into / study.folder).mkdir(parents=True)
        for file in view.files:
            _link(version_dir / file.path, into / file.path)
        table = pq.read_table(version_dir / CLINICAL, columns=["study", *sorted(columns)])
        chosen = pa.array([study.study for study in view.studies], pa.string())
        rows = table.filter(pc.is_in(table["study"], value_set=chosen))
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        _write(into / CLINICAL, content)
        clinical = DatasetFile(CLINICAL, len(content), hashlib.sha256(content).hexdigest())
        view = replace(view, files=(clinical, *view.files))
        _write(into / MANIFEST, canonical.encode(view))
        for folder, _below, _files in os.walk(into):
            os.chmod(folder, 0o755)  # noqa: S103 - the container is another user, and this process's umask is 077
    except BaseException:
        _clear(into)
        raise
    return view


def _copy_study(handover: Path, staging: Path, study: Study) -> list[DatasetFile]:
    source = handover / study.folder
    target = staging / study.folder
    target.mkdir(mode=0o755, parents=True)
    names = sorted(os.listdir(source)) if source.is_dir() and not source.is_symlink() else []
    if len(names) != study.instances or not all(map(_INSTANCE.fullmatch, names)):
        raise IntegrityBroken("a handover folder does not hold what its report says")
    return [_copy(source / name, target / name, f"{study.folder}/{name}") for name in names]


def _copy(source: Path, target: Path, path: str) -> DatasetFile:
    digest, size = hashlib.sha256(), 0
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise IntegrityBroken("a handover folder does not hold what its report says") from None
    with os.fdopen(reading, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise IntegrityBroken("a handover folder does not hold what its report says")
        with os.fdopen(_create(target), "wb", buffering=0) as out:
            while block := file.read(_BLOCK):
                digest.update(block)
                out.write(block)
                size += len(block)
            os.fsync(out.fileno())
    return DatasetFile(path, size, digest.hexdigest())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise IntegrityBroken("a dataset version lacks a file of its manifest") from None
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        _copy(source, target, "")


def _create(path: Path) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(handle, 0o444)
    return handle


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(_create(path), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _read(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise IntegrityBroken("a folder lacks its manifest or report") from None
    with os.fdopen(handle, "rb") as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
    if len(content) > MAX_MANIFEST_BYTES:
        raise Malformed("a manifest or report is over its size limit")
    return content


def _flush_folders(top: Path) -> None:
    for folder, _below, _files in os.walk(top, topdown=False):
        _flush(Path(folder))


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)

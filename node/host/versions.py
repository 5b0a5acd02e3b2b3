"""How a dataset version lies on the disk: its manifest, the report it was made by, and the view of it that a job gets.

Core publishes versions, intake writes reports, a trial at home makes views: what they share of the disk is here.
Everything is opened without following a link, and written whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mediator import canonical
from mediator.datasets import CLINICAL, MANIFEST, MAX_MANIFEST_BYTES, check_report, view_of
from mediator.deid.orders import IngestReport
from mediator.errors import IntegrityBroken, Malformed
from mediator.types import DatasetFile, Manifest

REPORT = "report.json"
_BLOCK = 1 << 20


def read_report(handover: Path) -> IngestReport:
    """The account of a handover folder. Raises `IntegrityBroken`, `Malformed`."""
    report = canonical.decode(IngestReport, _read(handover / REPORT), limit=MAX_MANIFEST_BYTES)
    check_report(report)
    return report


def read_manifest(version_dir: Path) -> Manifest:
    """The manifest of a version or of a job's view. Raises `IntegrityBroken`, `Malformed`."""
    return canonical.decode(Manifest, _read(version_dir / MANIFEST), limit=MAX_MANIFEST_BYTES)


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
        write_file(into / CLINICAL, content)
        clinical = DatasetFile(CLINICAL, len(content), hashlib.sha256(content).hexdigest())
        view = replace(view, files=(clinical, *view.files))
        write_file(into / MANIFEST, canonical.encode(view))
        for folder, _below, _files in os.walk(into):
            os.chmod(folder, 0o755)  # noqa: S103 - the container is another user, and this process's umask is 077
    except BaseException:
        clear(into)
        raise
    return view


def copy_file(source: Path, target: Path, path: str) -> DatasetFile:
    """Copy a regular file, as core's own (0444) and flushed; what was written, under the name `path`.

    Raises `IntegrityBroken` for what is no regular file.
    """
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


def write_file(path: Path, content: bytes) -> None:
    """Write a new file (0444), flushed."""
    with os.fdopen(_create(path), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def flush_folder(folder: Path) -> None:
    """Bring a folder's own entries to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear(folder: Path) -> None:
    """Remove a folder with all it holds, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise IntegrityBroken("a dataset version lacks a file of its manifest") from None
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        copy_file(source, target, "")


def _create(path: Path) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(handle, 0o444)
    return handle


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

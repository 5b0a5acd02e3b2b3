"""How datasets lie on the disk: manifests, studies, the report they were made by, and the view that a job gets.

datasets/<project>/<id>/            a version 1: `manifest.json`, `clinical.parquet`, `studies/<study>/<nnnn>.dcm`
datasets/<project>/studies/<root>/  a study, once: `study.json`, `<nnnn>.dcm`; the folder's name is the root over them
datasets/<project>/versions/<id>/   a version 2 over such studies: `manifest.json`, `clinical.parquet`

Core publishes versions, intake writes reports, a trial at home makes views: what they share of the disk is here.
Everything is opened without following a link, and written whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from durable.below import PASSING, below, open_file
from durable.files import write_inside, writing_inside
from durable.reading_group import EVERYBODY, ReadingGroup
from mediator import canonical
from mediator.datasets import (
    CLINICAL,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_STUDY_BYTES,
    STUDY,
    check_report,
    decode_manifest,
    decode_study,
    view_of,
)
from mediator.errors import IntegrityBroken, Malformed
from mediator.import_orders import IngestReport
from mediator.manifests import AnyManifest, ManifestV2, StudyRecord
from mediator.types import DatasetFile, Manifest

REPORT = "report.json"
STUDIES = "studies"
VERSIONS = "versions"
_BLOCK = 1 << 20
_READ_ONLY = 0o444


def read_report(handover: Path) -> IngestReport:
    """The account of an import's folder, which is intake's. Raises `IntegrityBroken`, `Malformed`."""
    text = _read(handover / REPORT, MAX_MANIFEST_BYTES, theirs=1)
    report = canonical.decode(IngestReport, text, limit=MAX_MANIFEST_BYTES)
    check_report(report)
    return report


def read_manifest(version_dir: Path) -> AnyManifest:
    """The manifest of a version or of a job's view. Raises `IntegrityBroken`, `Malformed`."""
    return decode_manifest(_read(version_dir / MANIFEST, MAX_MANIFEST_BYTES))


def read_study(project_dir: Path, root: str) -> StudyRecord:
    """The record of a project's study. Raises `IntegrityBroken` when it is not what `root` names, `Malformed`."""
    return decode_study(_read(project_dir / STUDIES / root / STUDY, MAX_STUDY_BYTES), root)


def job_view(
    version_dir: Path,
    manifest: AnyManifest,
    split: Literal["train", "test", "unlabelled"],
    columns: Collection[str],
    into: Path,
    group: ReadingGroup = EVERYBODY,
) -> Manifest:
    """Fill the folder a job sees as `/data`: hard links to one split's images, and the permit's columns of its rows.

    `into` is empty, or not there. All in it is given to `group`, images with it, whatever they were when they were
    published. Returns the reduced manifest, which lies in the folder too. Raises `Denied` for a column the
    dataset does not have, `IntegrityBroken` when the version is not what its manifest says.
    """
    view = view_of(manifest, split, columns)
    if not into.is_dir():
        into.mkdir()
        into.chmod(0o755)
    try:
        for study in view.studies:
            (into / study.folder).mkdir(parents=True)
        if isinstance(manifest, ManifestV2):
            images = tuple(_link_studies(version_dir.parent.parent, manifest, split, into, group))
        else:
            images = view.files
            for file in images:
                _link(version_dir / file.path, into / file.path, file.size_bytes, group)
        clinical = _write_table(version_dir, manifest, view, into)
        view = replace(view, files=(clinical, *images))
        write_file(into / MANIFEST, canonical.encode(view))
        for name in (CLINICAL, MANIFEST):
            group.give_file(into / name)
        for folder, folders, _files in os.walk(into):
            for name in folders:
                group.give_folder(Path(folder) / name)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)  # the folder itself may be the broker's
        raise
    return view


def _link_studies(
    project_dir: Path, manifest: ManifestV2, split: str, into: Path, group: ReadingGroup
) -> Iterator[DatasetFile]:
    for entry in manifest.studies:
        if entry.split != split:
            continue
        record = read_study(project_dir, entry.root)
        if len(record.files) != entry.instances:
            raise IntegrityBroken("a study is not what its version says")
        for file in record.files:
            path = f"{entry.folder}/{file.path}"
            _link(project_dir / STUDIES / entry.root / file.path, into / path, file.size_bytes, group)
            yield replace(file, path=path)


def _write_table(version_dir: Path, manifest: AnyManifest, view: Manifest, into: Path) -> DatasetFile:
    """The view's columns of the rows of its studies."""
    table = pq.read_table(pa.BufferReader(_table(version_dir, manifest)), columns=["study", *sorted(view.columns)])
    chosen = pa.array([study.study for study in view.studies], pa.string())
    rows = table.filter(pc.is_in(table["study"], value_set=chosen))
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_file(into / CLINICAL, content)
    return DatasetFile(CLINICAL, len(content), hashlib.sha256(content).hexdigest())


def _table(version_dir: Path, manifest: AnyManifest) -> bytes:
    tables = manifest.tables if isinstance(manifest, ManifestV2) else manifest.files
    named = next((file for file in tables if file.path == CLINICAL), None)
    if named is None:
        raise IntegrityBroken("a dataset version has no clinical table")
    with os.fdopen(_open(version_dir / CLINICAL, "a dataset version lacks its clinical table"), "rb") as file:
        content = file.read(named.size_bytes + 1)
    if hashlib.sha256(content).hexdigest() != named.sha256:
        raise IntegrityBroken("the table of a dataset version is not what its manifest says")
    return content


def copy_file(
    source: Path, target: Path, path: str, *, theirs: int = 0, group: ReadingGroup = EVERYBODY
) -> DatasetFile:
    """Copy a regular file, as core's own, `group`'s to read, and flushed; what was written, under the name `path`.

    `theirs`: so many folders above the file are another user's. Raises `IntegrityBroken` for what is no regular file.
    """
    digest, size = hashlib.sha256(), 0
    reading = _open(source, "a handover folder does not hold what its report says", theirs)
    with os.fdopen(reading, "rb", buffering=0) as file, writing_inside(target, _READ_ONLY) as out:
        while block := file.read(_BLOCK):
            digest.update(block)
            out.write(block)
            size += len(block)
    group.give_file(target)
    return DatasetFile(path, size, digest.hexdigest())


def write_file(path: Path, content: bytes) -> None:
    """Write a new file of core's own (0444) into a folder that is being made, flushed."""
    write_inside(path, content, _READ_ONLY)


def clear(folder: Path) -> None:
    """Remove a folder with all it holds, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _link(source: Path, target: Path, size_bytes: int, group: ReadingGroup) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise IntegrityBroken("a dataset version lacks a file of its manifest") from None
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        copy_file(source, target, "")
    if group.give_file(target).st_size != size_bytes:
        raise IntegrityBroken("a file of a dataset version is not what its manifest says")


def _open(path: Path, otherwise: str, theirs: int = 0) -> int:
    """A regular file for reading. Raises `IntegrityBroken` in the words of `otherwise` for a link, or what is none.

    `theirs`: so many folders above it are another user's, who must not lead us elsewhere.
    """
    top = path.parents[theirs]
    try:
        with below(top, *path.parent.relative_to(top).parts, flags=PASSING) as folder:
            return open_file(folder, path.name)
    except OSError:
        raise IntegrityBroken(otherwise) from None


def _read(path: Path, limit: int, *, theirs: int = 0) -> bytes:
    with os.fdopen(_open(path, "a folder lacks its manifest, record or report", theirs), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Malformed("a manifest, record or report is over its size limit")
    return content

"""Taking dataset versions out of use, and taking from the disk what no version holds any more.

A withdrawn version's own folder goes, and with it every study that neither another version nor an import under way
refers to. What says so is the store; a version that lies on the disk and that the store has never heard of (its
database was restored, or the crash came between the two) is left alone with its studies, and told.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from containers.warm.pool import Sandboxes
from durable.files import flush_folder
from mediator.audit import Action, Verdict
from mediator.errors import CloisterError, Code, UsageFault
from mediator.grammar import HEX256
from mediator.manifests import ManifestV2
from node.core.context import Core, event
from node.host.versions import STUDIES, VERSIONS, clear, read_manifest

log = logging.getLogger(__name__)

# Which of some studies of a project, named by their roots, are referred to.
InUse = Callable[[str, Collection[str]], Collection[str]]

_ROOT = re.compile(HEX256)
# roots asked of the store at once, below SQLite's oldest limit on a statement's variables
_BATCH = 500


def withdraw(core: Core, sandboxes: Sandboxes, version: str, actor: str) -> None:
    """Take a version out of use: its containers are ended, its files go, its id and numbers stay on record."""
    with core.store.read() as snapshot:
        row = snapshot.dataset_version(version)
    if row is None:
        raise UsageFault("there is no such dataset version")
    gone = event(Action.DATASET_WITHDRAW, version, Verdict.DONE, actor=actor)
    stopping = sandboxes.begin_stop(Code.DATASET_MISSING, lambda key: key.dataset_version == version)
    try:
        with core.store.transaction(core.clock()) as tx:
            tx.withdraw_dataset_version(version, event=gone)
    finally:
        stopping.wait()
    sandboxes.stop(Code.DATASET_MISSING, lambda key: key.dataset_version == version)  # begun meanwhile
    with core.datasets_lock:
        remove_unheld(core)


def remove_unheld(core: Core) -> None:
    """Take from the disk what is withdrawn, half made or referred to by nobody. `core.datasets_lock` is held."""
    with core.store.read() as snapshot:
        rows = snapshot.dataset_versions()

    def in_use(project: str, roots: Collection[str]) -> Collection[str]:
        with core.store.read() as asked:
            return asked.studies_in_use(project, roots) | asked.studies_being_imported(project, roots)

    known = {row.folder for row in rows}
    sweep(core.folders.datasets, known, {row.folder for row in rows if row.withdrawn is not None}, in_use)


def sweep(datasets: Path, known: Collection[str], withdrawn: Collection[str], in_use: InUse) -> None:
    """Remove leftovers, the folders of `withdrawn` versions (of all those `known`), and studies nobody refers to."""
    _remove([folder for each in withdrawn if (folder := datasets / each).is_dir()])
    for project_dir in _below(datasets):
        for place in (project_dir, project_dir / STUDIES, project_dir / VERSIONS):
            for leftover in _below(place, hidden=True):
                clear(leftover)
        try:
            strangers = _strangers(project_dir, known)
        except CloisterError:
            log.warning("a dataset version is in no record and cannot be read: nothing of its project is removed")
            continue
        studies = (each for each in _below(project_dir / STUDIES) if _ROOT.fullmatch(each.name))
        while batch := list(islice(studies, _BATCH)):
            kept = strangers.union(in_use(project_dir.name, [each.name for each in batch]))
            _remove([study for study in batch if study.name not in kept])


def _strangers(project_dir: Path, known: Collection[str]) -> frozenset[str]:
    """The studies of versions that the store does not know."""
    roots: set[str] = set()
    for version in _below(project_dir / VERSIONS):
        if f"{project_dir.name}/{VERSIONS}/{version.name}" not in known:
            log.warning("a dataset version lies on the disk and is in no record: it stays, and no permit reaches it")
            manifest = read_manifest(version)
            if isinstance(manifest, ManifestV2):
                roots.update(entry.root for entry in manifest.studies)
    return frozenset(roots)


def _remove(folders: Sequence[Path]) -> None:
    """Hidden first: what is half gone must not be found under its name."""
    hidden = [folder.with_name(f".{folder.name}.removed") for folder in folders]
    for folder, aside in zip(folders, hidden, strict=True):
        clear(aside)
        folder.rename(aside)
    for parent in {folder.parent for folder in folders}:
        flush_folder(parent)
    for aside in hidden:
        clear(aside)


def _below(folder: Path, *, hidden: bool = False) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") == hidden and path.is_dir() and not path.is_symlink():
            yield path

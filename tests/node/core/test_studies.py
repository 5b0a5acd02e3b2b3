"""A study stands once, a version is a manifest over studies: taken in one by one, whole after whatever crash."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mediator.errors import IntegrityBroken, UsageFault
from mediator.manifests import ManifestV2
from node.core.datasets.publish import folder_of, publish_version
from node.core.datasets.removal import sweep
from node.host.versions import read_manifest, read_study
from tests.node.core.handover import ACCOUNT, MADE_BY, NEWER, PROJECT, study, take, write_study, write_table

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def handover(tmp_path: Path) -> Path:
    for number in range(1, 5):
        write_study(tmp_path / "handover", number)
    write_table(tmp_path / "handover", range(1, 5))
    return tmp_path / "handover"


def make(handover: Path, datasets: Path, *numbers: int, **more: Any) -> ManifestV2:
    held = [take(handover, datasets, number) for number in numbers]
    tables = {"clinical.parquet": handover / "clinical.parquet"}
    return publish_version(ACCOUNT, held, tables, datasets, created=NOW, supersedes=None, **more)


def listing(datasets: Path) -> dict[str, tuple[int, int]]:
    """Every file by its path, with what tells whether it was written again."""
    found = (path for path in datasets.rglob("*") if path.is_file())
    return {str(path.relative_to(datasets)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def contents(datasets: Path) -> dict[str, bytes]:
    return {name: (datasets / name).read_bytes() for name in listing(datasets)}


# --- once ---------------------------------------------------------------------------------------------------


def test_one_more_study_writes_its_own_files_a_manifest_and_a_table(handover: Path, tmp_path: Path) -> None:
    datasets = tmp_path / "datasets"
    make(handover, datasets, 1, 2, 3)
    before = listing(datasets)
    manifest = make(handover, datasets, 1, 2, 3, 4)
    after = listing(datasets)
    assert {name: after[name] for name in before} == before, "nothing that was there is written again"
    root = next(entry.root for entry in manifest.studies if entry.study == study(4).study)
    home, version = f"{PROJECT}/studies/{root}", folder_of(manifest)
    assert after.keys() - before.keys() == {
        f"{home}/0001.dcm", f"{home}/0002.dcm", f"{home}/study.json",
        f"{version}/manifest.json", f"{version}/clinical.parquet",
    }  # fmt: skip


def test_the_same_study_again_is_the_one_that_stands(handover: Path, tmp_path: Path) -> None:
    first = take(handover, tmp_path, 1)
    before = listing(tmp_path / PROJECT)
    assert take(handover, tmp_path, 1) == first
    assert listing(tmp_path / PROJECT) == before
    write_study(handover, 1, content="other")
    assert take(handover, tmp_path, 1).root != first.root, "other files are another study"


def test_a_study_is_read_only_and_its_record_says_what_made_it(handover: Path, tmp_path: Path) -> None:
    held = take(handover, tmp_path, 1, NEWER)
    home = tmp_path / PROJECT / "studies" / held.root
    record = read_study(tmp_path / PROJECT, held.root)
    assert record.deidentification == NEWER == held.deidentification
    assert record.size_bytes == held.size_bytes == sum(path.stat().st_size for path in home.glob("*.dcm"))
    for file in record.files:
        assert hashlib.sha256((home / file.path).read_bytes()).hexdigest() == file.sha256
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o444}


@pytest.mark.parametrize("what", ["one more", "one less", "another name", "a link", "a folder", "nothing", "absent"])
def test_a_folder_that_is_not_the_study_is_not_taken(handover: Path, tmp_path: Path, what: str) -> None:
    folder = handover / study(1).folder
    if what == "one more":
        (folder / "0003.dcm").write_bytes(b"x")
    elif what == "another name":
        (folder / "0001.dcm").rename(folder / "Hartog.dcm")
    else:
        (folder / "0001.dcm").unlink()
    if what == "a link":
        (folder / "0001.dcm").symlink_to(folder / "0002.dcm")
    elif what == "a folder":
        (folder / "0001.dcm").mkdir()
    elif what == "nothing":
        (folder / "0002.dcm").unlink()
    elif what == "absent":
        folder.rename(handover / "elsewhere")
    with pytest.raises(IntegrityBroken):
        take(handover, tmp_path / "datasets", 1)
    assert not list((tmp_path / "datasets" / PROJECT / "studies").iterdir())


def test_a_version_holds_only_studies_that_were_taken(handover: Path, tmp_path: Path) -> None:
    held = take(handover, tmp_path, 1)
    (tmp_path / PROJECT / "studies" / held.root / "study.json").unlink()
    with pytest.raises(IntegrityBroken):
        publish_version(ACCOUNT, [held], {}, tmp_path, created=NOW, supersedes=None)
    assert not list((tmp_path / PROJECT / "versions").iterdir())


def test_a_version_that_mixes_fingerprints_was_ordered_to_and_says_so(handover: Path, tmp_path: Path) -> None:
    two = [take(handover, tmp_path, 1), take(handover, tmp_path, 2, NEWER)]
    with pytest.raises(UsageFault, match="in 2 ways"):
        publish_version(ACCOUNT, two, {}, tmp_path, created=NOW, supersedes=None)
    assert not list((tmp_path / PROJECT / "versions").iterdir())
    mixed = publish_version(ACCOUNT, two, {}, tmp_path, created=NOW, supersedes=None, mixed=True)
    said = read_manifest(tmp_path / folder_of(mixed))
    assert isinstance(said, ManifestV2) and said.deidentification == (NEWER, MADE_BY)


# --- killed -------------------------------------------------------------------------------------------------

_STEPS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir"})


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that is killed before its step number `step` at the file system; whether it came so far."""
    child = os.fork()
    if child == 0:
        done = 0

        def count(event: str, _arguments: object) -> None:
            nonlocal done
            if event in _STEPS:
                done += 1
                if done == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def assert_whole(datasets: Path) -> None:
    """Whatever can be seen is whole."""
    for home in (datasets / PROJECT / "studies").glob("[!.]*"):
        for file in read_study(datasets / PROJECT, home.name).files:
            assert hashlib.sha256((home / file.path).read_bytes()).hexdigest() == file.sha256
    for version in (datasets / PROJECT / "versions").glob("[!.]*"):
        manifest = read_manifest(version)
        assert manifest.dataset_version == f"sha256:{version.name}"
        assert all((datasets / PROJECT / "studies" / entry.root).is_dir() for entry in manifest.studies)  # type: ignore[union-attr]


@pytest.mark.parametrize("swept", [False, True], ids=["given again", "swept and given again"])
def test_killed_anywhere_and_given_again_it_is_whole(handover: Path, tmp_path: Path, swept: bool) -> None:
    wanted = contents(make(handover, tmp_path / "whole", 1, 2) and tmp_path / "whole")
    step, killed = 0, True
    while killed:
        step += 1
        datasets = tmp_path / f"killed-{step}"
        killed = killed_at(step, lambda: make(handover, datasets, 1, 2))  # noqa: B023 - called at once
        assert_whole(datasets)
        if swept:
            sweep(datasets, (), (), lambda _project, _roots: ())
            assert not list(datasets.rglob(".*")), "hidden leftovers go"
        make(handover, datasets, 1, 2)
        assert contents(datasets) == wanted, step
    assert step > 40


def test_a_removal_killed_anywhere_leaves_nothing_half(handover: Path, tmp_path: Path) -> None:
    def remove(datasets: Path, version: str) -> None:
        sweep(datasets, {version}, {version}, lambda _project, _roots: ())

    step, killed = 0, True
    while killed:
        step += 1
        datasets = tmp_path / f"killed-{step}"
        manifest = make(handover, datasets, 1, 2)
        killed = killed_at(step, lambda: remove(datasets, folder_of(manifest)))  # noqa: B023 - called at once
        for home in (datasets / PROJECT / "studies").glob("[!.]*"):
            assert len(os.listdir(home)) == 3, "a study that can be found has all its files"
        remove(datasets, folder_of(manifest))
        assert contents(datasets) == {}, step
    assert step > 20

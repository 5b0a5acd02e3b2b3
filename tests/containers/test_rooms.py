"""A container's folders on this machine: whose they are, and what must not be mounted."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from containers import rooms
from mediator.errors import Denied
from node.host.accounts import Account, acting_as


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir(mode=0o700)
    return tmp_path / "work"


def test_a_jobs_folders_are_made_and_what_is_in_them_stays(root: Path) -> None:
    rooms.make(root, "train-1")
    (root / "train-1" / "data" / "manifest.json").touch()
    rooms.make(root, "train-1")
    assert rooms.why_not(root, "train-1") is None
    assert sorted(path.name for path in (root / "train-1").rglob("*")) == ["data", "in", "manifest.json"]


@pytest.mark.parametrize(("root_mode", "job", "inside"), [(0o700, 0o700, 0o755), (0o2750, 0o2750, 0o2775)])
def test_a_root_that_hands_its_group_on_is_that_groups_to_fill(
    root: Path, root_mode: int, job: int, inside: int
) -> None:
    root.chmod(root_mode)
    before = os.umask(0o077)
    try:
        rooms.make(root, "train-1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "train-1").stat().st_mode) == job
    assert {stat.S_IMODE((root / "train-1" / name).stat().st_mode) for name in ("data", "in")} == {inside}


@pytest.mark.parametrize("step", ["work", "work/train-1", "work/train-1/data", "work/train-1/in"])
@pytest.mark.parametrize("how", ["a link", "another's", "open to others", "missing"])
def test_what_could_be_exchanged_is_not_mounted(tmp_path: Path, root: Path, step: str, how: str) -> None:
    rooms.make(root, "train-1")
    folder = tmp_path / step
    if how == "a link":
        folder.rename(tmp_path / "moved")
        folder.symlink_to(tmp_path / "moved")
    elif how == "another's":
        if os.geteuid() != 0:
            pytest.skip("gives a folder away")
        os.chown(folder, 64999, 64999)
    elif how == "open to others":
        if step.endswith(("data", "in")):
            pytest.skip("core writes in it")
        folder.chmod(0o770)
    else:
        folder.rename(tmp_path / "moved")
    assert rooms.why_not(root, "train-1")


@pytest.mark.parametrize("job", ["..", ".", "", "a/b", "../probe", "train-1/data"])
def test_a_job_is_one_step_below_the_root(root: Path, job: str) -> None:
    (root / "a" / "b" / "data").mkdir(parents=True)
    (root / "a" / "b" / "in").mkdir()
    assert rooms.why_not(root, job)
    with pytest.raises(Denied):
        rooms.make(root, job)


def test_what_core_has_emptied_is_removed_and_nothing_else(root: Path) -> None:
    for job in ("gone", "kept", "full"):
        rooms.make(root, job)
    (root / "full" / "data" / "manifest.json").touch()
    (root / "link").symlink_to(root / "kept")
    rooms.remove_empty(root, ["kept"])
    assert sorted(os.listdir(root)) == ["full", "kept", "link"]
    assert sorted(os.listdir(root / "kept")) == ["data", "in"]
    assert os.listdir(root / "full" / "data") == ["manifest.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
def test_an_empty_folder_that_the_broker_cannot_open_is_removed_too() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name)
        (root / "cores").mkdir(mode=0o700)
        os.chown(root / "cores", 64101, 64101)
        os.chown(root, 64103, 64103)
        with acting_as(Account(64103, 64103)):
            rooms.remove_empty(root, [])
        assert os.listdir(root) == []

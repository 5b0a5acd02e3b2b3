"""Where a run locks and unpacks: nobody but root can stand in its way there."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.install import layout
from deploy.install.machine import Machine
from deploy.install.opening import clear_work


@pytest.mark.parametrize("path", [layout.LOCK, layout.WORK])
def test_it_lies_where_root_alone_makes_files(path: str) -> None:
    folder = Path(path).parent
    assert folder.stat().st_mode & 0o022 == 0 and folder.stat().st_uid == 0, folder


@pytest.mark.parametrize("what", ["file", "link", "folder", "nothing"])
def test_whatever_is_there_is_cleared(tmp_path: Path, what: str) -> None:
    machine = Machine(tmp_path)
    work = machine.at(layout.WORK)
    work.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    if what == "file":
        work.write_text("in the way")
    elif what == "link":
        work.symlink_to(tmp_path / "elsewhere")
    elif what == "folder":
        (work / "bundle").mkdir(parents=True)
    clear_work(machine)
    assert not work.exists() and not work.is_symlink() and (tmp_path / "elsewhere").is_dir()

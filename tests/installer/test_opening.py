"""Where a run locks and unpacks: nobody but root can stand in its way there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.install import layout
from deploy.install.changes import from_plain
from deploy.install.machine import Machine
from deploy.install.opening import clear_work
from deploy.install.talk import Fault


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


def test_the_systems_own_python_is_taken_whichever_others_are_there(tmp_path: Path) -> None:
    script = (
        (Path(__file__).parents[2] / "deploy" / "install.sh")
        .read_text()
        .replace("/usr/bin/python", f"{tmp_path}/python")
    )
    (tmp_path / "install.sh").write_text(script)
    for name in ("python3", "python3.11", "python3.12"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$0 $2"\n')
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", tmp_path / "install.sh", "node"], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/python3 -B"
    (tmp_path / "python3").unlink()
    done = subprocess.run(["bash", tmp_path / "install.sh", "node"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/python3.12 -B"


def test_an_account_with_a_word_that_nobody_knows_is_told_in_words() -> None:
    with pytest.raises(Fault, match="a word that this installer does not know"):
        from_plain({"kind": "folder", "path": "/x", "colour": "red"})

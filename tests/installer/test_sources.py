"""A version's folder: whose installer and whose keys it gets, who may write them, and that it is on the disk."""

from __future__ import annotations

import os
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.install.machine import Machine
from deploy.install.sources import Source, compile_all, from_bundle
from deploy.install.talk import Fault


def opened_bundle(folder: Path) -> Path:
    """What a bundle unpacks to, on a disk that knows no modes."""
    (folder / "install" / "__pycache__").mkdir(parents=True)
    for name in ("install.sh", "install/run.py", "install/main.py", "install/__pycache__/main.pyc"):
        (folder / name).write_text("of the new version")
    (folder / "release-keys.txt").write_text("the new key")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    return folder


def source(folder: Path) -> Source:
    made = from_bundle(folder, "0.3.0", "somebody", None, (), ())
    return replace(made, fill=lambda _machine, venv: venv.mkdir())


def test_a_version_gets_the_installer_and_the_keys_that_it_came_with(tmp_path: Path) -> None:
    source(opened_bundle(tmp_path / "bundle")).stage(Machine(tmp_path), tmp_path / "0.3.0")
    assert (tmp_path / "0.3.0/release-keys.txt").read_text() == "the new key"
    assert (tmp_path / "0.3.0/install/main.py").read_text() == "of the new version"
    assert not (tmp_path / "0.3.0/install/__pycache__").exists()


def test_nobody_but_root_writes_it_whatever_disk_it_came_from(tmp_path: Path) -> None:
    source(opened_bundle(tmp_path / "bundle")).stage(Machine(tmp_path), tmp_path / "0.3.0")
    modes = {str(each.relative_to(tmp_path / "0.3.0")): each.stat() for each in (tmp_path / "0.3.0").rglob("*")}
    assert {name: oct(each.st_mode & 0o7777) for name, each in modes.items() if name != "venv"} == {
        "install": "0o755", "install.sh": "0o755", "install/main.py": "0o644", "install/run.py": "0o644",
        "release-keys.txt": "0o644",
    }  # fmt: skip
    assert {each.st_uid for each in modes.values()} == {os.geteuid()}


@pytest.mark.parametrize("missing", ["install.sh", "install/run.py"])
def test_a_bundle_without_an_installer_is_refused(tmp_path: Path, missing: str) -> None:
    folder = opened_bundle(tmp_path / "bundle")
    (folder / missing).unlink()
    with pytest.raises(Fault, match="holds no installer") as raised:
        source(folder)
    assert raised.value.code == 4


def test_it_is_on_the_disk_before_anybody_calls_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: seen.append((tmp_path / "0.3.0/install/run.py").exists()))
    source(opened_bundle(tmp_path / "bundle")).stage(Machine(tmp_path), tmp_path / "0.3.0")
    assert seen == [True]


def test_byte_code_is_made_of_all_that_runs_and_of_no_packages_own_tests(tmp_path: Path) -> None:
    """A module called like a test is one that runs; a folder of tests is not."""
    made = tmp_path / "venv"
    venv.create(made)
    packages = next((made / "lib").glob("python*/site-packages"))
    for name in ("one/code.py", "one/tests/code.py", "one/deep/test/code.py", "latest/code.py", "one/tests.py"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text("x = 1\n")
    compile_all(Machine(tmp_path), made)
    found = {str(each.relative_to(packages).parents[1]) + "/" + each.name.split(".")[0]
             for each in packages.rglob("*.pyc")}  # fmt: skip
    assert found == {"one/code", "latest/code", "one/tests"}, sys.version

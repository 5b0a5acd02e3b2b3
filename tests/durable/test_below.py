"""Folders and files opened step by step: whoever owns a folder on the way does not say where it leads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from durable.below import PASSING, below, open_file, read_file, whole_path


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    (tmp_path / "top" / "a" / "b" / "file").write_bytes(b"right")
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b" / "file").write_bytes(b"wrong")
    return tmp_path / "top"


def test_what_is_there_is_opened(top: Path) -> None:
    assert read_file(top, "a", "b", "file") == b"right"
    with whole_path(top / "a") as folder, below(folder, "b") as inner:
        assert os.listdir(inner) == ["file"]
    with whole_path(top) as folder, below(folder) as same:
        assert os.listdir(same) == ["a"]


@pytest.mark.parametrize("step", ["a", "a/b", "a/b/file"])
def test_a_link_at_any_step_is_refused(top: Path, step: str) -> None:
    (top / step).rename(top.parent / "moved")
    (top / step).symlink_to(top.parent / "elsewhere" / Path(*Path(step).parts[1:]))
    with pytest.raises(OSError):
        read_file(top, "a", "b", "file")


def test_a_path_through_a_link_is_not_a_whole_one(top: Path) -> None:
    (top.parent / "way").symlink_to(top)
    with pytest.raises(OSError), whole_path(top.parent / "way" / "a"):
        pass
    with pytest.raises(OSError), whole_path(top.parent / "way", PASSING):
        pass


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc"])
def test_a_step_is_the_name_of_one_entry(top: Path, name: str) -> None:
    with pytest.raises(OSError), below(top, name):
        pass
    with whole_path(top) as folder, pytest.raises(OSError):
        open_file(folder, name)


def test_what_is_exchanged_after_the_opening_is_not_what_is_read(top: Path) -> None:
    with below(top, "a", flags=PASSING) as folder:
        (top / "a").rename(top / "old")
        (top / "a").symlink_to(top.parent / "elsewhere")
        with below(folder, "b") as inner:
            assert os.read(open_file(inner, "file"), 9) == b"right"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("file", path)])
def test_a_file_is_a_regular_file(top: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(top / "odd")
    with whole_path(top) as folder, pytest.raises(OSError):
        open_file(folder, "odd")


def test_nothing_stays_open(top: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read_file(top, "a", "b", "file")
        with pytest.raises(OSError), below(top, "a", "nowhere", "b"):
            pass
        with pytest.raises(ZeroDivisionError), whole_path(top / "a"):
            1 / 0  # noqa: B018
    assert set(os.listdir("/proc/self/fd")) == before

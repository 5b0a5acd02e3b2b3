"""Files and folders are there whole or not at all: whatever is in the way, whatever ends the writer."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable import files
from tests.sim.users import as_user

REPO = Path(__file__).resolve().parents[2]
OLD, NEW = b"old\n", b"new, and longer than the old\n" * 100
WRITERS = {"replace": files.replace_file, "create": files.create_file}
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write(path, b"x" * 5000)
except OSError as error:
    print(error.errno)
"""
KILLED = """
import os, signal
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
os.{step} = kill
write(path, b"half")
"""


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """(what was flushed, whether the target `file` or `folder` had its name by then), in order."""
    seen: list[tuple[str, bool]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        seen.append(
            (path.name, any((each / name).exists() for each in (path, path.parent) for name in ("file", "dir")))
        )
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    return seen


def run(program: str, write: str, path: Path) -> subprocess.CompletedProcess[str]:
    head = (
        f"import sys\nfrom pathlib import Path\nfrom durable.files import {write} as write\npath = Path(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", head + program, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- files


def test_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    files.replace_file(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW
    assert names(tmp_path) == ["file"]


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(FileExistsError):
        files.create_file(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_a_file_that_came_while_it_was_written_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), files.creating(tmp_path / "file") as file:
        file.write(NEW)
        (tmp_path / "file").write_bytes(OLD)
    assert (tmp_path / "file").read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_without_hard_links_a_file_that_is_there_is_not_overwritten_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "a memory stick")

    monkeypatch.setattr(os, "link", no_links)
    files.create_file(tmp_path / "file", NEW, 0o640)
    assert ((tmp_path / "file").read_bytes(), mode(tmp_path / "file")) == (NEW, 0o640)
    with pytest.raises(FileExistsError), files.creating(tmp_path / "other") as file:
        file.write(NEW)
        (tmp_path / "other").write_bytes(OLD)
    assert (tmp_path / "other").read_bytes() == OLD
    assert names(tmp_path) == ["file", "other"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("what", ["link", "dead link", "socket"])
def test_what_never_was_a_part_is_removed_and_not_followed(
    tmp_path: Path, write: Callable[..., None], what: str
) -> None:
    """It kept every later writer of that file out, without a word of what was in the way."""
    (tmp_path / "victim").write_bytes(OLD)
    if what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / ".file.part"))
    else:
        (tmp_path / ".file.part").symlink_to(tmp_path / ("victim" if what == "link" else "nowhere"))
    write(tmp_path / "file", NEW)
    assert (tmp_path / "victim").read_bytes() == OLD
    assert (tmp_path / "file").read_bytes() == NEW
    assert names(tmp_path) == ["file", "victim"]


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as two users")
def test_another_users_part_is_said_to_be_in_the_way_and_stays(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)
        (folder / ".file.part").touch(mode=0o600)
        program = (
            f"import sys; sys.path.insert(0, {str(REPO)!r})\nfrom pathlib import Path\nfrom durable import files\n"
            "try:\n    files.replace_file(Path(sys.argv[1]), b'new')\n"
            "except PermissionError as error:\n    print(error.filename, error.strerror)\n"
        )
        command = as_user([sys.executable, "-B", "-c", program, str(folder / "file")])
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
        assert said == f"{folder}/.file.part another user's part is in the way: remove it\n"
        assert names(folder) == [".file.part"]
    finally:
        shutil.rmtree(folder)


def test_a_link_in_the_way_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(OLD)
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    files.replace_file(tmp_path / "file", NEW)
    assert (tmp_path / "victim").read_bytes() == OLD
    assert not (tmp_path / "file").is_symlink()


def test_a_dead_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        files.create_file(tmp_path / "file", NEW)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_part_does_not_keep_the_writer_waiting(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A folder of that name is somebody's, and stays; a pipe is nobody's."""
    make(tmp_path / ".file.part")
    if (tmp_path / ".file.part").is_dir():
        with pytest.raises(IsADirectoryError):
            files.replace_file(tmp_path / "file", NEW)
        assert (tmp_path / ".file.part").is_dir()
    else:
        files.replace_file(tmp_path / "file", NEW)
        assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("asked", [0o600, 0o644, 0o444, 0o666])
def test_a_mode_is_exact_whatever_the_umask(tmp_path: Path, umask: Callable[[int], int], asked: int) -> None:
    umask(0o077)
    for name, write in WRITERS.items():
        write(tmp_path / name, NEW, asked)
        assert mode(tmp_path / name) == asked
    files.write_inside(tmp_path / "inside", NEW, asked)
    assert mode(tmp_path / "inside") == asked


def test_a_masked_mode_is_cut_by_the_umask(tmp_path: Path, umask: Callable[[int], int]) -> None:
    umask(0o027)
    for name, write in WRITERS.items():
        write(tmp_path / name, NEW, 0o666, masked=True)
        assert mode(tmp_path / name) == 0o640


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_the_file_is_flushed_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, flushed: list[tuple[str, bool]], write: Callable[..., None]
) -> None:
    write(tmp_path / "file", NEW)
    assert flushed == [(".file.part", False), (tmp_path.name, True)]


def test_a_part_may_lie_in_another_folder(tmp_path: Path, flushed: list[tuple[str, bool]]) -> None:
    (tmp_path / "kept").mkdir()
    files.replace_file(tmp_path / "kept" / "file", NEW, aside=tmp_path)
    assert flushed == [(".file.part", False), ("kept", True)]
    assert (names(tmp_path), names(tmp_path / "kept")) == (["kept"], ["file"])


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_no_restart_reads_is_not_flushed(
    tmp_path: Path, flushed: list[tuple[str, bool]], write: Callable[..., None]
) -> None:
    write(tmp_path / "file", NEW, flush=False)
    assert (flushed, (tmp_path / "file").read_bytes()) == ([], NEW)


@pytest.mark.parametrize("writing", [files.replacing, files.creating])
def test_a_block_that_raises_leaves_nothing(tmp_path: Path, writing: Callable[..., Any]) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "file") as file:
        file.write(NEW)
        file.flush()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize(("write", "before"), [("replace_file", [OLD]), ("replace_file", []), ("create_file", [])])
def test_a_full_disk_leaves_the_old_content_and_no_part(tmp_path: Path, write: str, before: list[bytes]) -> None:
    """A limit on a file's size stands in for the disk: the kernel refuses half way, as it does when a disk is full."""
    for content in before:
        (tmp_path / "file").write_bytes(content)
    assert run(FULL, write, tmp_path / "file").stdout.strip() == str(errno.EFBIG)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == before


@pytest.mark.parametrize(("write", "step"), [("replace_file", "replace"), ("replace_file", "fsync")])
def test_a_kill_before_the_rename_leaves_the_old_content(tmp_path: Path, write: str, step: str) -> None:
    (tmp_path / "file").write_bytes(OLD)
    assert run(KILLED.format(step=step), write, tmp_path / "file").returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == OLD
    assert names(tmp_path) == [".file.part", "file"], "the part was written"
    files.replace_file(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW
    assert names(tmp_path) == ["file"], "and goes with the next writing"


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_kill_before_the_link_leaves_nothing_under_the_name(tmp_path: Path, step: str) -> None:
    assert run(KILLED.format(step=step), "create_file", tmp_path / "file").returncode == -signal.SIGKILL
    assert names(tmp_path) == [".file.part"]
    files.create_file(tmp_path / "file", NEW)
    assert names(tmp_path) == ["file"]


def test_a_kill_after_the_link_leaves_the_whole_file(tmp_path: Path) -> None:
    assert run(KILLED.format(step="unlink"), "create_file", tmp_path / "file").returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"half"
    files.replace_file(tmp_path / "file", NEW)
    assert (names(tmp_path), (tmp_path / "file").stat().st_nlink) == (["file"], 1)


def test_two_writers_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    other = threading.Thread(target=files.replace_file, args=(tmp_path / "file", OLD))
    with files.replacing(tmp_path / "file") as file:
        file.write(NEW[:10])
        file.flush()
        other.start()
        other.join(0.2)
        assert other.is_alive()
        file.write(NEW[10:])
    other.join(10)
    assert ((tmp_path / "file").read_bytes(), names(tmp_path)) == (OLD, ["file"])


def test_many_writers_never_show_half_a_file(tmp_path: Path) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    threads = [
        threading.Thread(target=files.replace_file, args=(tmp_path / "file", content)) for content in contents * 5
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "file").exists():
            assert (tmp_path / "file").read_bytes() in contents
    assert names(tmp_path) == ["file"]


def test_a_forked_child_does_not_keep_the_next_writer_waiting(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "file") as file:
        file.write(OLD)
        if (child := os.fork()) == 0:
            signal.pause()
    try:
        handle = os.open(tmp_path / "file", os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- folders


def test_a_folder_appears_with_all_it_holds(tmp_path: Path, umask: Callable[[int], int]) -> None:
    umask(0o077)
    with files.creating_folder(tmp_path / "dir", 0o750) as part:
        files.write_inside(part / "a", NEW, 0o440)
        (part / "below").mkdir()
        with files.writing_inside(part / "below" / "b") as file:
            file.write(OLD)
        assert names(tmp_path) == [part.name]
        assert mode(part) == 0o700, "nobody else looks into it before"
    assert names(tmp_path) == ["dir"]
    assert (names(tmp_path / "dir"), mode(tmp_path / "dir")) == (["a", "below"], 0o750)
    assert (mode(tmp_path / "dir" / "a"), mode(tmp_path / "dir" / "below" / "b")) == (0o440, 0o600)


def test_a_folders_set_group_id_bit_holds_from_the_beginning(tmp_path: Path) -> None:
    with files.creating_folder(tmp_path / "dir", 0o2750) as part:
        assert mode(part) == 0o2700
    assert mode(tmp_path / "dir") == 0o2750


def test_every_file_and_folder_is_flushed_before_the_folder_has_its_name(
    tmp_path: Path, flushed: list[tuple[str, bool]]
) -> None:
    with files.creating_folder(tmp_path / "dir") as part:
        files.write_inside(part / "a", NEW)
        (part / "below").mkdir()
    assert flushed == [("a", False), (".dir.part", False), ("below", False), (tmp_path.name, True)]


def test_a_folder_that_holds_anything_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "kept").write_bytes(OLD)
    with pytest.raises(OSError), files.creating_folder(tmp_path / "dir") as part:
        files.write_inside(part / "a", NEW)
    assert (names(tmp_path), names(tmp_path / "dir")) == (["dir"], ["kept"])


def test_a_block_that_raises_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.creating_folder(tmp_path / "dir") as part:
        files.write_inside(part / "a", NEW)
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_what_a_dead_process_left_of_a_folder_is_gone_with_the_next(tmp_path: Path) -> None:
    (tmp_path / ".dir.part").mkdir()
    (tmp_path / ".dir.part" / "left").write_bytes(OLD)
    with files.creating_folder(tmp_path / "dir") as part:
        files.write_inside(part / "a", NEW)
    assert (names(tmp_path), names(tmp_path / "dir")) == (["dir"], ["a"])


def test_a_link_in_the_way_of_a_folders_part_is_removed_and_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "kept").write_bytes(OLD)
    (tmp_path / ".dir.part").symlink_to(tmp_path / "victim")
    with files.creating_folder(tmp_path / "dir") as part:
        files.write_inside(part / "a", NEW)
    assert names(tmp_path / "victim") == ["kept"] and names(tmp_path) == ["dir", "victim"]
    (tmp_path / "other").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError), files.creating_folder(tmp_path / "other"):
        pass
    assert names(tmp_path / "victim") == ["kept"]


def test_inside_a_folder_nothing_is_overwritten_or_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(OLD)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in ("a", "b"):
        with pytest.raises(FileExistsError):
            files.write_inside(tmp_path / name, NEW)
    assert (tmp_path / "a").read_bytes() == OLD

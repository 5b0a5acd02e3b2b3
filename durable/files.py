"""Files and folders that appear whole or not at all, whatever ends the process that writes them.

1. What is written is a part beside its place, `.<name>.part`: made anew (`O_EXCL`), never through a link
   (`O_NOFOLLOW`), not handed on to a program that is started meanwhile (`O_CLOEXEC`).
2. It is on the disk (`fsync`) before it gets its name.
3. It gets its name in one step: by rename where it replaces what is there, by link where it must not.
4. The name is on the disk too (`fsync` of the folder) before the caller goes on.

Whatever fails is raised as the `OSError` it is; what was there before is there still, and the part is gone. The part of
a process that was killed is removed by whoever writes this file next: a lock tells it from the part of a living one,
which is waited for. A link or a socket of that name is removed too; another user's part is not, and said to be there.

A mode is exact; `masked` has the umask cut it, as people expect of files they asked for. `flush=False` leaves (2) and
(4) out, for what nobody reads after a crash.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# a pipe in the way must not keep us waiting
_THERE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# a file system without hard links (a memory stick), or without locks (some network ones)
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def replace_file(
    path: Path,
    content: bytes,
    mode: int = 0o600,
    *,
    masked: bool = False,
    flush: bool = True,
    aside: Path | None = None,
) -> None:
    """Write a file, in place of the one that may be there.

    `aside` is the folder of the part, on the same disk, where the file's own must never hold anything else.
    """
    with _whole(path, mode, os.replace, masked, flush, aside) as file:
        file.write(content)


def create_file(path: Path, content: bytes, mode: int = 0o600, *, masked: bool = False, flush: bool = True) -> None:
    """Write a file that is not there. Raises `FileExistsError` where anything has its name, be it a dead link."""
    with creating(path, mode, masked=masked, flush=flush) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, mode: int = 0o600, *, masked: bool = False, flush: bool = True) -> Iterator[BinaryIO]:
    """`replace_file`, in pieces: the file appears when the block ends, and does not when the block raises."""
    with _whole(path, mode, os.replace, masked, flush) as file:
        yield file


@contextmanager
def creating(path: Path, mode: int = 0o600, *, masked: bool = False, flush: bool = True) -> Iterator[BinaryIO]:
    """`create_file`, in pieces. Raises `FileExistsError` at once, and at the end if another was quicker."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with _whole(path, mode, _link, masked, flush) as file:
        yield file


@contextmanager
def creating_folder(path: Path, mode: int = 0o700, *, flush: bool = True) -> Iterator[Path]:
    """A new folder: the block fills the one it is given (`write_inside`), which then gets its name.

    Only its owner can look into it before. Raises `OSError` where anything but an empty folder has the name.
    """
    part = _part(path)
    handle = _claim(part, _make_folder, shutil.rmtree)
    try:
        os.fchmod(handle, mode & ~0o077)
        yield part
        os.fchmod(handle, mode)
        if flush:
            for folder, _, _ in os.walk(part):
                flush_folder(Path(folder))
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        _release(handle)
    if flush:
        flush_folder(path.parent)


def write_inside(path: Path, content: bytes, mode: int = 0o600, *, flush: bool = True) -> None:
    """Write a new file into a folder that has not got its name yet (`creating_folder`), and so needs no part."""
    with writing_inside(path, mode, flush=flush) as file:
        file.write(content)


@contextmanager
def writing_inside(path: Path, mode: int = 0o600, *, flush: bool = True) -> Iterator[BinaryIO]:
    """`write_inside`, in pieces."""
    handle = os.open(path, _NEW, mode)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            os.fchmod(handle, mode)
            yield file
        if flush:
            os.fsync(handle)
    finally:
        os.close(handle)


def flush_file(path: Path) -> None:
    """Bring what another process wrote into a file to the disk."""
    handle = os.open(path, _THERE)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Bring a folder's own entries to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- inside


@contextmanager
def _whole(
    path: Path,
    mode: int,
    publish: Callable[[Path, Path], None],
    masked: bool,
    flush: bool,
    aside: Path | None = None,
) -> Iterator[BinaryIO]:
    part = _part(path if aside is None else aside / path.name)
    handle = _claim(part, lambda part: os.open(part, _NEW, mode), os.unlink)  # (1)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            if not masked:
                os.fchmod(handle, mode)
            yield file
        if flush:
            os.fsync(handle)  # (2)
        publish(part, path)  # (3)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        _release(handle)
    if flush:
        flush_folder(path.parent)  # (4)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _link(part: Path, path: Path) -> None:
    try:
        os.link(part, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # the name is claimed by an empty file first: a kill right here leaves that, and never half of what is written
        os.close(os.open(path, _NEW, 0o600))
        os.replace(part, path)
    else:
        part.unlink()


def _claim(part: Path, make: Callable[[Path], int], remove: Callable[[Path], None]) -> int:
    """A new part, open and locked, that nobody else writes."""
    while True:
        try:
            handle = make(part)
        except FileExistsError:
            _clear(part, remove)
            continue
        _lock(handle)
        if _is_at(handle, part):
            return handle
        os.close(handle)  # somebody took it for a dead one's before it was locked


def _clear(part: Path, remove: Callable[[Path], None]) -> None:
    try:
        if not _may_be_a_part(os.lstat(part).st_mode):
            os.unlink(part)  # the link itself, the socket itself: what a link leads to is not touched
            return
        handle = os.open(part, _THERE)
    except FileNotFoundError:
        return
    except PermissionError as error:
        # it may be the part of a living process, which nobody but its user can tell
        raise PermissionError(error.errno, "another user's part is in the way: remove it", str(part)) from None
    try:
        _lock(handle)
        if _is_at(handle, part):
            remove(part)
    finally:
        _release(handle)


def _may_be_a_part(mode: int) -> bool:
    """A link or a socket never was one, cannot be opened, and would keep every writer of the file out for ever."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISFIFO(mode)


def _make_folder(part: Path) -> int:
    os.mkdir(part, 0o700)
    try:
        return os.open(part, _FOLDER)
    except FileNotFoundError:  # taken for a dead one's
        raise FileExistsError from None


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _release(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
    except OSError:
        pass
    os.close(handle)


def _is_at(handle: int, part: Path) -> bool:
    try:
        there = os.lstat(part)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)

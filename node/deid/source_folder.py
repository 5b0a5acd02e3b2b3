"""A hospital's folder, walked without trust: no link is followed, no device opened, nothing above it reached.

1. Folders are entered relative to the descriptor of their parent; links to folders are not entered.
2. A file is opened with O_NOFOLLOW and O_NONBLOCK (a FIFO must not hold us) and must be a regular file.
3. At most `MAX_FILES` files and `MAX_DEPTH` levels; a file over `MAX_FILE_BYTES` is not read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from mediator.deid.screening import Exclusion
from mediator.errors import UsageFault
from node.deid.stream import FileStream

MAX_FILES = 1_000_000
MAX_DEPTH = 32
# A multi-frame file of 2 GB passes; what is larger than a disk image of a DVD set is no instance.
MAX_FILE_BYTES = 16 << 30
_WHY_CLOSED = {
    errno.ENOENT: "is not there", errno.EACCES: "is closed to the user who reads it",
    errno.ENOTDIR: "is no folder, or a link", errno.ELOOP: "is a link",
}  # fmt: skip


@dataclass(frozen=True)
class FolderSource:
    """A folder as a source of originals (`node.deid.pipeline.InstanceSource`), each by its path below it."""

    root: str

    def open(self, path: str) -> FileStream:
        """Raises `UsageFault`."""
        return FileStream(open_inside(self.root, path))


@dataclass(frozen=True)
class SourceEntry:
    """One name found below the source: its path relative to it, and an open descriptor or why there is none."""

    path: str
    handle: int | None
    refused: Exclusion | None = None


def walk(source: str, skip: str | None = None, largest: int = MAX_FILE_BYTES) -> Iterator[SourceEntry]:
    """Every file below `source` in the order of its path; the consumer closes the handle. Raises `UsageFault`."""
    root = _open_folder(source)
    try:
        for count, entry in enumerate(_folder(root, "", 0, largest), start=1):
            if count > MAX_FILES:
                _close(entry)
                raise UsageFault(f"the source folder holds more than {MAX_FILES} files")
            if entry.path == skip:
                _close(entry)
            else:
                yield entry
    finally:
        os.close(root)


def look(source: str, skip: str | None = None, name: str = "the source folder") -> None:
    """Whether there is anything to read. Raises `UsageFault`, which calls it `name`, where no single file below it can
    be opened."""
    found = False
    for entry in walk(source, skip):
        if entry.handle is not None:
            os.close(entry.handle)
            return
        found = True
    if found:
        raise UsageFault(
            f"no file in {name} can be read", hint="open its files to the user who reads them, as by setfacl"
        )
    raise UsageFault(f"{name} is empty")


def open_inside(source: str, relative: str) -> int:
    """A descriptor of the regular file `relative` inside `source`; no part of its path may be a link. `UsageFault`."""
    parts = PurePosixPath(relative).parts
    if not parts or relative.startswith("/") or ".." in parts:
        raise UsageFault(
            "the clinical file is not named as one inside the source folder",
            hint="give its name relative to that folder",
        )
    here = _open_folder(source)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        handle = _open_file(parts[-1], here)
    except OSError:
        handle = None
    finally:
        os.close(here)
    if handle is None:
        raise UsageFault(
            "the clinical file is not there, is closed to the user who reads it, or is no regular file",
            hint="its name is relative to the source folder",
        )
    return handle


def _open_folder(source: str) -> int:
    try:
        return os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        words = _WHY_CLOSED.get(error.errno or 0, "cannot be opened")
        raise UsageFault(f"the source folder {words}", hint="a folder, not a link, that this user may read") from None


def _folder(handle: int, prefix: str, depth: int, largest: int) -> Iterator[SourceEntry]:
    with os.scandir(handle) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            if depth >= MAX_DEPTH:
                yield SourceEntry(path, None, Exclusion.NOT_A_FILE)
                continue
            yield from _below(entry.name, handle, path, depth, largest)  # (1)
            continue
        try:
            opened = _open_file(entry.name, handle)  # (2)
        except OSError:
            opened = None
        if opened is None:
            yield SourceEntry(path, None, Exclusion.NOT_A_FILE)
        elif os.fstat(opened).st_size > largest:  # (3)
            os.close(opened)
            yield SourceEntry(path, None, Exclusion.TOO_LARGE)
        else:
            yield SourceEntry(path, opened)


def _below(name: str, parent: int, path: str, depth: int, largest: int) -> Iterator[SourceEntry]:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        yield SourceEntry(path, None, Exclusion.NOT_A_FILE)
        return
    try:
        yield from _folder(handle, f"{path}/", depth + 1, largest)
    finally:
        os.close(handle)


def _open_file(name: str, parent: int) -> int | None:
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    return None


def _close(entry: SourceEntry) -> None:
    if entry.handle is not None:
        os.close(entry.handle)

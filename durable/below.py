"""Folders and files opened below a folder, step by step: no link is followed, and nothing is swapped on the way.

A path is resolved anew whenever it is used, and whoever owns a folder on the way decides where it leads to. A
descriptor stays with what it was opened on: each step is opened in the one before (`openat`), each with `O_NOFOLLOW`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# to be looked at and to go on from, without a right to read it
PASSING = os.O_PATH | _STEP
READING = os.O_RDONLY | _STEP
# a pipe in the way must not keep us waiting
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def whole_path(path: Path, flags: int = READING) -> Iterator[int]:
    """A folder, open, every step of whose path is a folder and no link."""
    handle = os.open("/", PASSING)
    with _walk(handle, path.absolute().parts[1:], flags) as end:
        yield end


@contextmanager
def below(top: int | Path, *names: str, flags: int = READING) -> Iterator[int]:
    """The folder `names` below `top`, open. Where `top` is, is the caller's to know."""
    handle = os.open(top, PASSING & ~os.O_NOFOLLOW) if isinstance(top, Path) else os.open(".", PASSING, dir_fd=top)
    with _walk(handle, names, flags) as end:
        yield end


def open_file(folder: int, name: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A regular file in an open folder. Raises `OSError` for a link, or for what is no regular file."""
    handle = os.open(_plain(name), flags | _FILE, mode, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return handle


def read_file(top: Path, *names: str) -> bytes:
    """All of the file `names` below `top`. Raises `OSError` where a step is a link, or the last no regular file."""
    with below(top, *names[:-1], flags=PASSING) as folder, os.fdopen(open_file(folder, names[-1]), "rb") as file:
        return file.read()


@contextmanager
def _walk(handle: int, names: tuple[str, ...], flags: int) -> Iterator[int]:
    try:
        for name in names:
            handle = _step(handle, _plain(name), PASSING)
        if flags != PASSING:
            handle = _step(handle, ".", flags)
        yield handle
    finally:
        os.close(handle)


def _step(handle: int, name: str, flags: int) -> int:
    # opened first: whoever holds `handle` closes it when this fails
    there = os.open(name, flags, dir_fd=handle)
    os.close(handle)
    return there


def _plain(name: str) -> str:
    if not name or "/" in name or name in (".", ".."):
        raise OSError(errno.EINVAL, "not the name of an entry", name)
    return name

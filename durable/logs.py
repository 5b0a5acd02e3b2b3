"""A log that another process appends to, and that is to stay small whatever makes that process talk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from durable.files import replacing

_PIECE = 1 << 20


def keep_small(path: Path, most_bytes: int) -> bool:
    """Once a log is larger, move what it holds to `<name>.1` and empty it; whoever appends goes on in the empty file.

    It is asked every second or so, so that two logs and what a second brings are the most there is. What is written in
    the moment between copying and emptying is lost, and so is all of it where the disk has no room for the copy: a log
    must not be what keeps a disk full. False where nothing was to be done.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        if size <= most_bytes:
            return False
        with suppress(OSError):
            _copy(descriptor, max(0, size - most_bytes), size, path.with_name(f"{path.name}.1"))
        os.ftruncate(descriptor, 0)
        return True
    finally:
        os.close(descriptor)


def _copy(descriptor: int, begin: int, end: int, target: Path) -> None:
    """The newest part of a log, as a file of its own; it need not survive a power cut."""
    with replacing(target, flush=False) as copy:
        while piece := os.pread(descriptor, min(_PIECE, end - begin), begin):
            copy.write(piece)
            begin += len(piece)

"""Room on the disk that is kept for the last records: a file of so many bytes, deleted when the disk is full.

A full disk keeps no container running (`node.core.deferred_records`), but what ended them is to be written down before
somebody has made room, and a core that starts must be able to open its database. Once there is room again, the file is
made again.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

# thousands of records, and a write-ahead log for them
RESERVE_BYTES = 4 << 20
# less than this is no room: a transaction writes some pages of 4 KiB each, and the log's files grow by as much
_FULL_BYTES = 256 << 10
# what `stat` counts in, whatever the file system has
_BLOCK_BYTES = 512
# the reserve is made where it leaves this many times its size free
_SPARE = 4


class Reserve:
    """One file that is nothing but its size. Thread-safe. Without a path there is none."""

    def __init__(self, path: Path | None = None, size_bytes: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._lock = threading.Lock()

    def make(self) -> bool:
        """Have the file be there, if the disk has room enough for it; whether it is."""
        if self._path is None:
            return False
        with self._lock:
            if self._is_whole():
                return True
            self._remove()  # what a core that was killed meanwhile left of it
            if self._free_bytes() < _SPARE * self._size_bytes:
                return False
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, self._size_bytes)
                finally:
                    os.close(descriptor)
            except OSError:
                self._remove()
                return False
            return True

    def free_if_full(self) -> bool:
        """Give the room away where the disk has none left; whether there is some now that was not there before."""
        if self._path is None:
            return False
        with self._lock:
            return self._free_bytes() < _FULL_BYTES and self._remove()

    def _is_whole(self) -> bool:
        assert self._path is not None
        try:
            found = os.lstat(self._path)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_blocks * _BLOCK_BYTES >= self._size_bytes

    def _free_bytes(self) -> int:
        assert self._path is not None
        try:
            found = os.statvfs(self._path.parent)
        except OSError:
            return _FULL_BYTES  # nothing is known, so nothing is done
        return found.f_bavail * found.f_frsize

    def _remove(self) -> bool:
        assert self._path is not None
        with suppress(OSError):
            self._path.unlink()
            return True
        return False

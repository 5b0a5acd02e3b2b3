"""A file's bytes, in memory or behind a descriptor: what reads headers never holds more than their beginning."""

from __future__ import annotations

import os
from typing import Protocol

# One system call moves at most this much; the kernel's own limit is just below 2 GiB.
COPY_BYTES = 1 << 26
READ_BYTES = 1 << 20


class Stream(Protocol):
    """Random access to the bytes of one file that does not change while it is read."""

    size: int

    def read(self, at: int, length: int) -> bytes:
        """Up to `length` bytes from `at`; fewer only at the end."""

    def copy(self, at: int, length: int, target: int) -> int:
        """Append bytes to the descriptor `target`; how many there were."""


class MemoryStream:
    """Bytes that are in memory already: an original out of quarantine, a dataset that was deflated."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def read(self, at: int, length: int) -> bytes:
        return self.content[at : at + length]

    def copy(self, at: int, length: int, target: int) -> int:
        part = memoryview(self.content)[at : at + length]
        done = 0
        while done < len(part):
            done += os.write(target, part[done : done + COPY_BYTES])
        return done


class FileStream:
    """A regular file behind a descriptor, which stays its owner's: to be kept open as long as this is used."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.size = os.fstat(handle).st_size

    def read(self, at: int, length: int) -> bytes:
        return os.pread(self._handle, length, at)

    def copy(self, at: int, length: int, target: int) -> int:
        """The kernel moves the bytes (and shares the blocks where the file system can)."""
        done = 0
        while done < length:
            step = min(length - done, COPY_BYTES)
            try:
                moved = os.copy_file_range(self._handle, target, step, at + done)
            except OSError:  # another file system, or one that cannot: by hand, and what is really wrong shows there
                return done + self._by_hand(at + done, length - done, target)
            if not moved:
                break
            done += moved
        return done

    def _by_hand(self, at: int, length: int, target: int) -> int:
        done = 0
        while done < length:
            chunk = memoryview(os.pread(self._handle, min(length - done, READ_BYTES), at + done))
            if not chunk:
                break
            done += len(chunk)
            while chunk:
                chunk = chunk[os.write(target, chunk) :]
        return done

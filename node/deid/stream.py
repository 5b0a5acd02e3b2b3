"""A file's bytes, in memory or behind a descriptor: what reads headers never holds more than their beginning."""

from __future__ import annotations

import os
import threading
from typing import Protocol

# One system call moves at most this much; the kernel's own limit is just below 2 GiB.
COPY_BYTES = 1 << 26
READ_BYTES = 1 << 20


class Hash(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Buffer(threading.local):
    """Each thread's own, used again: a fresh megabyte costs as much as copying it."""

    def __init__(self) -> None:
        self.whole = memoryview(bytearray(READ_BYTES))


_buffer = _Buffer()


class Stream(Protocol):
    """Random access to the bytes of one file that does not change while it is read."""

    size: int

    def read(self, at: int, length: int) -> bytes:
        """Up to `length` bytes from `at`; fewer only at the end."""

    def copy(self, at: int, length: int, target: int, machine: Hash | None = None) -> int:
        """Append bytes to the descriptor `target` (and to a hash on their way); how many there were."""


class Original(Stream, Protocol):
    """A stream that is closed by whoever asked for it."""

    def close(self) -> None: ...


class MemoryStream:
    """Bytes that are in memory already: an original out of quarantine, a dataset that was deflated."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def close(self) -> None:
        """Nothing is open."""

    def read(self, at: int, length: int) -> bytes:
        return self.content[at : at + length]

    def copy(self, at: int, length: int, target: int, machine: Hash | None = None) -> int:
        part = memoryview(self.content)[at : at + length]
        if machine is not None:
            machine.update(part)
        done = 0
        while done < len(part):
            done += os.write(target, part[done : done + COPY_BYTES])
        return done


class FileStream:
    """A regular file behind a descriptor, to be kept open as long as this is used: by its owner, or until `close`."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.size = os.fstat(handle).st_size

    def close(self) -> None:
        """Close the descriptor, where it was given away with it."""
        os.close(self._handle)

    def read(self, at: int, length: int) -> bytes:
        return os.pread(self._handle, length, at)

    def copy(self, at: int, length: int, target: int, machine: Hash | None = None) -> int:
        """The kernel moves the bytes (and shares the blocks where the file system can), but what is hashed we read."""
        done = 0
        if machine is not None:
            return self._by_hand(at, length, target, machine)
        while done < length:
            step = min(length - done, COPY_BYTES)
            try:
                moved = os.copy_file_range(self._handle, target, step, at + done)
            except OSError:  # another file system, or one that cannot: by hand, and what is really wrong shows there
                return done + self._by_hand(at + done, length - done, target, None)
            if not moved:
                break
            done += moved
        return done

    def _by_hand(self, at: int, length: int, target: int, machine: Hash | None) -> int:
        done = 0
        while done < length:
            moved = os.preadv(self._handle, [_buffer.whole[: length - done]], at + done)
            if not moved:
                break
            chunk = _buffer.whole[:moved]
            if machine is not None:
                machine.update(chunk)
            while chunk:
                chunk = chunk[os.write(target, chunk) :]
            done += moved
        return done

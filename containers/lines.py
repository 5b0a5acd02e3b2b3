"""A container's output as it comes, by lines: the keeper's words, which a hostile job may provoke, or a job's own.

Empty lines are left out, those longer than `LINE_BYTES` cut.
"""

from __future__ import annotations

import queue
import struct
import threading
from typing import Any

import requests
import urllib3

# the keeper's longest line is under 100 bytes
LINE_BYTES = 4096


class Lines:
    """A container's output by lines, read by a thread of its own that ends with `close`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._read, name="container-lines", daemon=True).start()

    def take(self, timeout_s: float) -> list[bytes]:
        """What has come by now; waits up to `timeout_s` for the first. Raises `EOFError` after the last one."""
        taken: list[bytes] = []
        try:
            entry = self._queue.get(timeout=timeout_s)
            while entry is not None:
                taken.append(entry)
                entry = self._queue.get_nowait()
        except queue.Empty:
            return taken
        self._queue.put(None)
        if taken:
            return taken
        raise EOFError

    def close(self) -> None:
        """End the thread by closing its connection."""
        try:
            self._stream.close()
        except (OSError, AttributeError):
            pass  # closed by the other side: there is no connection left to shut

    def _read(self) -> None:
        rest = b""
        try:
            for piece in self._stream:
                *lines, rest = (rest + piece).split(b"\n")
                for line in [*lines, *([rest] if len(rest) > LINE_BYTES else [])]:
                    if line:  # the keeper's first one is empty
                        self._queue.put(line[: LINE_BYTES + 1])
                rest = rest[: LINE_BYTES + 1]
        except (OSError, ValueError, struct.error, urllib3.exceptions.HTTPError, requests.RequestException):
            pass  # the connection ended, here or there: the reader sees the end of the lines
        finally:
            self._queue.put(None)

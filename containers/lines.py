"""A container's output as it comes, by lines: the keeper's words, which a hostile job may provoke, or a job's own.

Empty lines are left out, those longer than `LINE_BYTES` cut.
"""

from __future__ import annotations

import logging
import queue
import threading
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)

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
        with suppress(Exception):  # closed by the other side, perhaps: there is no connection left to shut
            self._stream.close()

    def _read(self) -> None:
        rest = b""
        try:
            for piece in self._stream:
                *lines, rest = (rest + piece).split(b"\n")
                for line in [*lines, *([rest] if len(rest) > LINE_BYTES else [])]:
                    if line:  # the keeper's first one is empty
                        self._queue.put(line[: LINE_BYTES + 1])
                rest = rest[: LINE_BYTES + 1]
        except Exception as error:  # noqa: BLE001 - whatever ended it, here or there: the reader sees the end of the lines
            log.debug("a container's output ended (%s)", type(error).__name__)
        finally:
            self._queue.put(None)

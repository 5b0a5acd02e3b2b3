"""How long a node was away, as its staff would have noticed."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType

from tests.install.machine import Machine

EVERY_S = 0.1


class Watch:
    """Knocks at core's socket ten times a second; `gap_s` is the longest time during which nobody answered."""

    def __init__(self, machine: Machine, at: str = "/var/lib/cloister/node/run/it_admin.sock") -> None:
        self._path = str(machine.path(at))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._knock)
        self.gap_s = 0.0

    def _knock(self) -> None:
        answered = time.monotonic()
        while True:
            over = self._stopping.is_set()
            with socket.socket(socket.AF_UNIX) as knocking:
                knocking.settimeout(2)
                try:
                    knocking.connect(self._path)
                    here = True
                except OSError:
                    here = False
            now = time.monotonic()
            if here or over:
                self.gap_s = max(self.gap_s, now - answered)
                answered = now
            if over:
                return
            time.sleep(EVERY_S)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

"""The way from a node to its hub, which can be cut: a relay of bytes on the loopback that understands none of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from tests.end_to_end.machine import HOST


class Wire:
    """Listens on a port of its own and carries to `port`; cut, it drops what it carried and takes nothing new."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._whole = True
        threading.Thread(target=self._take, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.cut()
        self._listening.close()

    def cut(self) -> int:
        """Every connection ends in the middle of whatever it was saying; how many they were."""
        with self._lock:
            self._whole = False
            ends = len(self._open)
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        return (ends + 1) // 2

    def mend(self) -> None:
        with self._lock:
            self._whole = True

    def _take(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((HOST, self._to), 5)
            except OSError:
                near.close()  # the hub is away
                continue
            far.settimeout(None)  # the five seconds were for connecting: a silent connection is a whole one
            with self._lock:
                if not self._whole:
                    near.close()
                    far.close()
                    continue
                self._open |= {near, far}
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=[source, target], daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        """One direction, to its end. Who is second to end closes both."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open.remove(source)
            if target not in self._open:
                source.close()
                target.close()

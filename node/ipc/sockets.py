"""The socket file: who may connect is decided by its owner, group and mode, so it appears only once those are right."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from mediator.errors import NotNow, UsageFault
from node.host.paths import MAX_SOCKET_BYTES

SOCKET_MODE = 0o660
FOLDER_MODE = 0o711


class SocketFile:
    """One server's claim on a socket path.

    1. A lock file beside it says whether another server lives; the kernel drops the lock when that one dies.
    2. Whatever a dead server left is replaced, provided it is a socket: no other file is ever removed.
    3. The server binds inside a private folder; the socket is moved to its name when owner and mode are set.
    """

    def __init__(self, path: Path, group: int | None = None) -> None:
        self.path = path
        self._group = group
        self._lock: int | None = None
        self._cradle = path.parent / f".{path.stem}"

    def claim(self) -> Path:
        """The path to bind. Raises `NotNow` while another server holds the socket, `UsageFault` when it cannot be."""
        check_length(self.path)
        try:
            self._make_folder()
            self._lock = _lock(self.path.with_suffix(".lock"))  # (1)
            if self._lock is None:
                raise NotNow(f"another process serves {self.path}", hint="stop it first: cloister node serve runs once")
            _remove_stale(self.path)  # (2)
            # no chmod: it would drop the set-group-ID bit, by which the socket takes its folder's group
            self._cradle.mkdir(mode=0o700, exist_ok=True)
            cradled = self._cradle / "s"
            _remove_stale(cradled)
        except OSError as error:
            self.release()
            raise UsageFault(f"cannot make a socket at {self.path}: {error.strerror}") from error
        return cradled

    def publish(self) -> None:
        """Give the bound socket its group, mode and name. (3)"""
        cradled = self._cradle / "s"
        try:
            if self._group is not None and cradled.stat().st_gid != self._group:
                os.chown(cradled, -1, self._group)
            cradled.chmod(SOCKET_MODE)
            cradled.rename(self.path)
            self._cradle.rmdir()
        except OSError as error:
            raise UsageFault(f"cannot make a socket at {self.path}: {error.strerror}") from error

    def release(self) -> None:
        """Remove the socket and let go of the claim; safe to call twice."""
        if self._lock is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _make_folder(self) -> None:
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True)
            self.path.parent.chmod(FOLDER_MODE)


def check_length(path: Path) -> None:
    """Raise `UsageFault` for a path the kernel could not bind."""
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise UsageFault(
            f"the socket path {path} is longer than {MAX_SOCKET_BYTES} bytes", hint="choose a shorter state_dir"
        )


def _lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageFault(f"{path} is in the way and is not a socket")
    path.unlink()

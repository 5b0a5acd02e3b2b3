"""The switch that pauses a node, and its mark: a file that is there while the node is paused, or not there.

The store remembers a pause too, when it can. The switch is what gate 1 can ask when the store answers nobody.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

from durable.files import flush_folder
from mediator.roles import Role
from node.host.disk_errors import cannot_write
from node.ipc.caller import Caller

# an actor of the audit log
_MARK_BYTES = 64
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# a pipe in its place must not keep a pause waiting
_OLD = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Switch:
    """Whether the hospital has paused its node, as far as that is known without asking the store. Thread-safe."""

    def __init__(self, mark: Path | None = None) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._on = False
        self.turn = 0

    @property
    def on(self) -> bool:
        return self._on or self.marked

    @property
    def heeded(self) -> bool:
        """Whether this process was asked to pause, or has acted on the mark."""
        return self._on

    @property
    def marked(self) -> bool:
        return self._mark is not None and os.path.lexists(self._mark)

    def turn_on(self) -> int:
        """Pause. Returns the number of this turn."""
        with self._lock:
            self._on = True
            self.turn += 1
            return self.turn

    def turn_off(self, turn: int) -> None:
        """Take the mark away and let gate 1 ask the store again, unless somebody paused after this turn."""
        if self.turn != turn:
            return
        if self._mark is not None:  # outside the lock: a disk that hangs must not keep the next pause waiting
            try:
                self._mark.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(self._mark, error) from None
        with self._lock:
            self._on = self.turn != turn
            paused_meanwhile = self._on
        self.prepare()
        if paused_meanwhile:  # by somebody who saw the mark that was taken away
            self.mark("")

    def prepare(self) -> None:
        """Have the mark's file at hand under another name: a rename needs neither room nor inode."""
        if self._mark is None or self.marked or os.path.lexists(self._ready):
            return
        try:
            descriptor = os.open(self._ready, _NEW, 0o644)
        except OSError:
            return
        try:
            os.fchmod(descriptor, 0o644)  # root's mark is core's to read, whatever the umask
            os.write(descriptor, bytes(_MARK_BYTES))
        except OSError:
            pass  # an empty file is a mark too
        finally:
            os.close(descriptor)

    @property
    def _ready(self) -> Path:
        assert self._mark is not None
        return self._mark.with_name(f"{self._mark.name}.ready")

    def mark(self, actor: str, turn: int = 0) -> bool:
        """Leave the mark: the file counts, and who asked only if it fits. The one that was prepared is renamed; a full
        disk may still have room for another.

        A disk that hung may make it later than a resume: what `turn` marked goes with its pause.
        """
        if self._mark is None:
            return False
        if self.marked:
            return True
        try:
            self._ready.rename(self._mark)
        except OSError:
            try:
                descriptor = os.open(self._mark, _NEW, 0o644)
            except FileExistsError:
                return True
            except OSError:
                return False
        else:
            try:
                descriptor = os.open(self._mark, _OLD)
            except OSError:
                return True  # the name is what counts, whatever stands there
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return True
            os.fchmod(descriptor, 0o644)
            os.write(descriptor, actor.encode("ascii")[:_MARK_BYTES])
            os.fsync(descriptor)
        except OSError:
            pass  # no room for a word
        finally:
            os.close(descriptor)
        with suppress(OSError):
            flush_folder(self._mark.parent)
        with self._lock:
            if turn and not self._on:
                self._mark.unlink(missing_ok=True)
                return False
        return True

    def marked_by(self) -> str:
        """The role that left the mark, as records name it; nothing where the mark does not say. A file proves nobody's
        name: the person is unknown."""
        try:
            with open(self._mark or os.devnull, "rb") as file:
                said = file.read(_MARK_BYTES).rstrip(b"\0").decode("ascii", "replace")
        except OSError:
            said = ""
        role = said.partition(".")[0]
        return Caller(role).actor if role in {each.value for each in Role} else ""

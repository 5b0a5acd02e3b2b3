"""Who on this machine may read what a job is given: the group of its container, and nobody else.

A view is hard links, so mode and group belong to the file itself, wherever it has a name. The number is that of the
group outside, which an engine that remaps its users (`userns-remap`, rootless) counts otherwise than inside.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class JobGroup:
    """`gid` is the job's group outside; None where this process may not give a file to it: then everybody may read
    what they reach, and the folders on the way keep them from it."""

    gid: int | None = None

    @property
    def folder_mode(self) -> int:
        """Of a folder, in which whatever is made takes the group too."""
        return 0o2750 if self.gid is not None else 0o755

    @property
    def file_mode(self) -> int:
        return 0o440 if self.gid is not None else 0o444

    def give_folder(self, path: Path) -> None:
        """Raises `PermissionError` where the group is not ours to give."""
        if self.gid is not None:
            os.chown(path, -1, self.gid, follow_symlinks=False)
        os.chmod(path, self.folder_mode)

    def give_file(self, path: Path) -> os.stat_result:
        """A file of ours that may have been given to others before; what it is now."""
        found = os.lstat(path)
        if self.gid is not None and found.st_gid != self.gid:
            os.chown(path, -1, self.gid, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != self.file_mode:
            os.chmod(path, self.file_mode)
        return found


EVERYBODY = JobGroup()

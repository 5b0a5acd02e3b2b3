"""Who else on this machine may read files of ours: one group, or everybody who reaches them.

A file that has several names (hard links) has one mode and one group, wherever it is found.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReadingGroup:
    """`gid` is a group that this process may give files to; None: everybody may read what they reach, and the folders
    on the way keep them from it."""

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


EVERYBODY = ReadingGroup()

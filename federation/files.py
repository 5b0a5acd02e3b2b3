"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write `content` beside `path`, flush it to the disk, and put it in place by rename."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # the mode of open() is cut by the umask, and ignored for a left-over file
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def make_folder(path: Path, mode: int = 0o700) -> Path:
    """The folder `path`, made with its parents when missing; its own mode is set either way."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path

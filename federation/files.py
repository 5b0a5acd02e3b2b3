"""Folders of the hub's and the link's own."""

from __future__ import annotations

from pathlib import Path


def make_folder(path: Path, mode: int = 0o700) -> Path:
    """The folder `path`, made with its parents when missing; its own mode is set either way."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path

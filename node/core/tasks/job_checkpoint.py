"""What a task that made room goes on from."""

from __future__ import annotations

from pathlib import Path

from containers.warm.container import CHECKPOINT
from durable.files import replace_file


def keep_checkpoint(folder: Path, content: bytes | None) -> None:
    """Keep what a task that made room goes on from, in the job's own folder, which ends with the job. One that left
    nothing goes on from what it left before."""
    if content is not None:
        replace_file(folder / CHECKPOINT, content)


def kept_checkpoint(folder: Path) -> bytes | None:
    """What the task left when it made room last; None if it never did."""
    try:
        return (folder / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return None

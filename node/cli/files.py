"""Reading and writing the small files a person hands to a command."""

from __future__ import annotations

import os
from pathlib import Path

from mediator.canonical import MAX_DOCUMENT_BYTES
from mediator.errors import UsageFault
from node.faults import cannot_write

# the largest initial model a command takes: 4 GiB, the most one gRPC or safetensors header of ours is tested with
MAX_MODEL_BYTES = 4 << 30


def read_text(path: Path, *, limit: int = 2 * MAX_DOCUMENT_BYTES) -> str:
    """The text of a small file, or one clear line."""
    return read_bytes(path, limit=limit).decode("utf-8", "replace").strip()


def read_bytes(path: Path, *, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > limit:
        raise UsageFault(f"{path} is larger than {limit} bytes")
    return raw


def write_new(path: Path, content: str, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all; an existing one is replaced by rename."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content if content.endswith("\n") else content + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from error

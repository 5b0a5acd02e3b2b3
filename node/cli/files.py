"""Reading and writing the small files a person hands to a command."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable import files as durable
from mediator.errors import UsageFault
from mediator.grammar import MAX_DOCUMENT_BYTES
from node.host.disk_errors import cannot_write


def read_text(path: Path, *, limit: int = 2 * MAX_DOCUMENT_BYTES) -> str:
    """The text of a small file, or one clear line."""
    return read_bytes(path, limit=limit).decode("utf-8", "replace").strip()


def parse_json(path: Path, raw: bytes | str) -> Any:
    """The JSON that was read from `path`, or one clear line saying where it is wrong."""
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    if text.startswith("\ufeff"):  # what some editors put before a text, and JSON does not allow
        raise UsageFault(f"{path} begins with a byte order mark", hint="save it as UTF-8 without one (BOM)")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageFault(f"{path} is not JSON: line {error.lineno}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise UsageFault(f"{path} is not JSON") from error


def read_bytes(path: Path, *, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > limit:
        raise UsageFault(f"{path} is larger than {limit} bytes")
    return raw


def write_new(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all. A text ends with a line end.

    Raises `UsageFault` for what is there already, which may be a key or a draft. The very same content is no fault: a
    command that is repeated has nothing to lose.
    """
    content = _as_bytes(content)
    try:
        if not os.path.lexists(path):
            _make_parents(path)
        durable.create_file(path, content, mode, masked=True)
    except FileExistsError:
        if not _holds(path, content):
            raise _there(path) from None
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_file(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """The same, for a file of our own that is brought up to date: an existing one is replaced by rename."""
    try:
        _make_parents(path)
        durable.replace_file(path, _as_bytes(content), mode, masked=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def check_new(path: Path) -> None:
    """Raise `UsageFault` for what is there already, or could not be written: asked before an act that cannot be done
    twice."""
    if os.path.lexists(path):
        raise _there(path)
    if not path.parent.is_dir():
        raise UsageFault(f"there is no folder {path.parent}", hint="make it, or give another name")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageFault(f"this user may not write into {path.parent}", hint="give another name")


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file where a folder should be: not to be taken for `path` itself
        raise NotADirectoryError(errno.ENOTDIR, error.strerror) from error


def _as_bytes(content: str | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if content.endswith("\n") else content + "\n").encode("utf-8")


def _holds(path: Path, content: bytes) -> bool:
    try:
        # no link and no pipe: only what a former run of ours left
        return stat.S_ISREG(path.lstat().st_mode) and read_bytes(path, limit=len(content)) == content
    except (OSError, UsageFault):
        return False


def _there(path: Path) -> UsageFault:
    return UsageFault(f"{path} is there already, and is not overwritten", hint="give another name, or move it away")


def check_new_folder(path: Path) -> None:
    """Raise `UsageFault` for a folder that holds anything, or for what is no folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageFault(f"{path} is there already and not an empty folder", hint="give another folder")


def write_folder(path: Path, files: Mapping[str, bytes], *, mode: int = 0o600) -> None:
    """Write a new folder of files, whole or not at all: it appears by rename, everything in it on the disk.

    Raises `UsageFault` for a folder that holds anything, which is left as it is.
    """
    check_new_folder(path)
    try:
        _make_parents(path)
        with durable.creating_folder(path) as part:
            for name, content in files.items():
                durable.write_inside(part / name, content, mode)
    except OSError as error:
        raise cannot_write(path, error) from error

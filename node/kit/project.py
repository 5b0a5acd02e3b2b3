"""New projects: a folder from one of the templates, with the job library and a draft permit in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from durable.files import create_file
from mediator.canonical import print_time
from mediator.errors import UsageFault
from mediator.grammar import IDENTIFIER
from node.host.disk_errors import cannot_write

TEMPLATES = ("torch", "flower", "flower-numpy", "plain")
LIBRARY = "cloister_job"
# a permit asked for today is granted later; its dates are the committee's to set
_ASKED_FOR = timedelta(days=365)
_USES_LIBRARY = frozenset(TEMPLATES) - {"plain"}


def new_project(folder: Path, template: str, name: str, today: datetime) -> tuple[str, ...]:
    """Make `folder` from a template; the files made, relative to it. Nothing that is there is overwritten.

    Raises `UsageFault` for an unknown template, for a name no permit may have, and for a folder that is not empty.
    """
    if template not in TEMPLATES:
        raise UsageFault(f"there is no template {template}", hint=f"one of {', '.join(TEMPLATES)}")
    if not re.fullmatch(IDENTIFIER, name):
        raise UsageFault(
            "a project's name is lower-case letters, digits, '.', '_' and '-'", hint="give one with --name"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(f"{folder} is there already and not an empty folder")
    day = today.replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"@NAME@": name, "@TODAY@": print_time(day), "@EXPIRES@": print_time(day + _ASKED_FOR)}
    made = []
    for path, content in _files(template):
        for mark, word in words.items():
            content = content.replace(mark, word)
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            create_file(target, content.encode("utf-8"), 0o666, masked=True)
        except OSError as error:
            raise cannot_write(target, error) from error
        made.append(path)
    return tuple(sorted(made))


def name_of(folder: Path) -> str:
    """A project's name from its folder's: lower case, whatever a permit may not hold as '-'."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:64]


def _files(template: str) -> Iterator[tuple[str, str]]:
    """(path, content) of a template, and of the job library where its language can use it."""
    yield from _walk(resources.files("node.kit") / "templates" / template, "")
    if template in _USES_LIBRARY:
        yield from _walk(resources.files("containers.job"), f"{LIBRARY}/")


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.name.startswith((".", "__pycache__")):
            continue
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf-8")

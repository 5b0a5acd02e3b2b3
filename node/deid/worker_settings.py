"""What a worker is told: a value that travels to its process. Whoever makes it loads no engine for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ProfileTable
from node.deid.pipeline import InstanceSource
from node.deid.profiles import load_profile, load_profile_file

Ocr = Literal["auto", "every-frame", "off"]


@dataclass(frozen=True)
class LogForm:
    """How a worker process logs: in the words of the process it belongs to, to the same stderr."""

    process: str
    level: str = "info"
    form: Literal["text", "json"] = "text"


PartsMaker = Callable[..., Any]
"""Makes a worker's parts in its process, as `node.deid.parts.parts_of` does: a function that travels by its name."""


@dataclass(frozen=True)
class Settings:
    """All a worker needs; picklable. `profile` is a name of ours or the path of a site's own file.

    With `review` there is a person to look: what may be looked at is written apart; without, it is excluded.
    """

    source: InstanceSource
    profile: str
    pseudonyms: Pseudonyms = field(repr=False)
    site: str = ""
    review: bool = field(default=False, kw_only=True)
    ocr: Ocr = field(default="auto", kw_only=True)
    defaced_by: str = field(default="", kw_only=True)  # what is said to have taken the faces off before
    read_text: bool = field(default=True, kw_only=True)  # False: nothing is read, as without an engine
    readers: int = field(default=1, kw_only=True)  # processes that read pixels, at most, for each worker
    copiers: int = field(default=0, kw_only=True)  # threads that copy pixels; worth it where a processor is free
    log: LogForm = field(default=LogForm("deid"), kw_only=True)
    parts: PartsMaker | None = field(default=None, kw_only=True)  # None: `parts_of`


def table_of(profile: str) -> ProfileTable:
    """A profile by name, or from a file when it is a path. Raises `UsageFault`, `Malformed`."""
    if profile.endswith(".toml") or "/" in profile:
        return load_profile_file(Path(profile))
    return load_profile(profile)


def pseudonyms(table: ProfileTable, key: bytes, project: str, site: str) -> Pseudonyms:
    """Those of stage 1 or of stage 2, as the profile says."""
    return Pseudonyms.local(key, site) if table.scope == "site" else Pseudonyms(key, project, site)

"""What a worker is made of: a value that travels to its process, and what is built from it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ProfileTable
from node.deid.copiers import Copiers
from node.deid.engine import ProfileEngine
from node.deid.pipeline import InstanceSource
from node.deid.pixels import Instance, PixelGate, PixelVerdict
from node.deid.pixels.reader import ReaderProcess
from node.deid.profiles import load_profile, load_profile_file, standard

Ocr = Literal["auto", "every-frame", "off"]


@dataclass(frozen=True)
class LogForm:
    """How a worker process logs: in the words of the process it belongs to, to the same stderr."""

    process: str
    level: str = "info"
    form: Literal["text", "json"] = "text"


class PixelExaminer(Protocol):
    """Judges the pixels of one series that gate 0 wrote (implemented by `node.deid.pixels.PixelGate`)."""

    def examine(self, series: Sequence[Instance]) -> tuple[PixelVerdict, ...]:
        """One verdict for each; text that can be blacked out is gone from the file then."""

    def close(self) -> None:
        """End whatever it runs."""


@dataclass(frozen=True)
class Parts:
    """What a worker works with."""

    engine: ProfileEngine
    pixels: PixelExaminer


class PartsMaker(Protocol):
    """Makes a worker's parts in its process; a function with a name, so that it travels."""

    def __call__(self, settings: Settings, on_picture: Callable[[], None]) -> Parts:
        """`on_picture` is to be called for each picture read."""


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
    read_text: bool = field(default=True, kw_only=True)  # False: nothing is read, as without an engine
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


def parts_of(settings: Settings, on_picture: Callable[[], None]) -> Parts:
    """The engine for the profile, and the pixel gate."""
    table = table_of(settings.profile)
    pixels = PixelGate(
        read_text=settings.read_text,
        every_frame=settings.ocr == "every-frame",
        hold_faces="clean-visual-features" in table.options,
        reader=ReaderProcess(on_picture=on_picture),
    )
    return Parts(ProfileEngine(table, standard(), Copiers(settings.copiers) if settings.copiers else None), pixels)

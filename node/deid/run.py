"""`cloister deid run`: what was asked for, the files of the folder, and what a run says of itself."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mediator.deid.pseudonyms import NORMALISATION
from mediator.deid.rules import ENGINE_VERSION, ProfileTable
from mediator.errors import UsageFault
from mediator.traceability import PSEUDONYMOUS, key_id
from node.deid import source_folder as folder
from node.deid.pipeline import File
from node.deid.pixels import PixelGate
from node.deid.sinks import FolderSink
from node.deid.worker_settings import Ocr, PartsMaker, Settings, pseudonyms

# Of one worker, where as many processors are free; each takes 0.4 to 0.95 GB.
READERS = 4


@dataclass(frozen=True)
class FolderRun:
    """A run as it was asked for. `profile` is a name of ours or the path of a site's own file."""

    source: str
    output: Path
    profile: str
    key: bytes = field(repr=False)
    project: str
    site: str
    ocr: Ocr = "auto"
    defaced_by: str = ""  # what took the faces off before, as whoever asked for it says
    parts: PartsMaker | None = None  # what its workers work with, if not `parts_of`

    @property
    def sink(self) -> FolderSink:
        return FolderSink(self.output)

    def settings(self, table: ProfileTable) -> Settings:
        """For its workers; `table` is the profile's."""
        keyed = pseudonyms(table, self.key, self.project, self.site)
        return Settings(
            folder.FolderSource(self.source),
            self.profile,
            keyed,
            self.site,
            review=True,
            ocr=self.ocr,
            readers=READERS,
            defaced_by=self.defaced_by,
            parts=self.parts,
        )

    def about(self, table: ProfileTable) -> dict[str, Any]:
        """What a run's summary says of itself: how, under which key, and who could still find a person."""
        return {
            "profile": f"{table.profile}/{table.profile_version}",
            "profile_fingerprint": table.fingerprint,
            "engine": ENGINE_VERSION,
            "normalisation": NORMALISATION,
            "options": sorted(table.options),
            "project": self.project if table.scope == "project" else "",
            "site": self.site,
            "key": key_id(self.key),
            "traceability": PSEUDONYMOUS,
            "ocr": self.ocr,
            **({"defaced_by": self.defaced_by, "defaced_said_by": _who()} if self.defaced_by else {}),
            "ocr_engine": PixelGate().engine,
        }


def _who() -> str:
    """Whose process this is: a person's name where the machine knows one."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def list_files(source: str) -> list[File]:
    """Every file below SRC in the order of its path, numbered from 1. Raises `UsageFault` when there is none, or when
    none of them can be opened."""
    found = []
    for number, entry in enumerate(folder.walk(source), start=1):
        if entry.handle is not None:
            os.close(entry.handle)
        found.append(File(number, entry.path, entry.refused.value if entry.refused else None))
    if not found:
        raise UsageFault("SRC holds no file")
    if all(file.refused for file in found):
        raise UsageFault("no file in SRC can be read by this user", hint="links are not followed")
    return found

"""What a worker works with, made in its process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from node.deid.copiers import Copiers
from node.deid.engine import ProfileEngine
from node.deid.pixels import Instance, PixelGate, PixelVerdict
from node.deid.pixels.reader import ReaderProcess
from node.deid.profiles import standard
from node.deid.worker_settings import Settings, table_of


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


def parts_of(settings: Settings, on_picture: Callable[[], None]) -> Parts:
    """The engine for the profile, and the pixel gate."""
    table = table_of(settings.profile)
    pixels = PixelGate(
        read_text=settings.read_text,
        every_frame=settings.ocr == "every-frame",
        believe_no=table.look_at == "unless-no" or settings.ocr == "off" or not settings.read_text,
        hold_faces="clean-visual-features" in table.options and not settings.defaced_by,
        readers=[ReaderProcess(on_picture=on_picture) for _ in range(settings.readers)],
    )
    return Parts(ProfileEngine(table, standard(), Copiers(settings.copiers) if settings.copiers else None), pixels)

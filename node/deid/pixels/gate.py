"""The pixel gate: de-identified files in, a verdict for each out; files with text are rewritten in place.

1. A file that needs no check is left alone: CLEAN, nothing read.
2. Without the engine or its pinned model every other file goes to review.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from node.deid.pixels.values import Instance, PixelFinding, State, Verdict, needs_check


class PixelGate:
    """Looks at the pixels of series, in a process of its own that it starts when first needed.

    `every_frame`: read each frame instead of projections (`--ocr every-frame`). `hold_faces`: the profile demands
    that recognisable faces are gone. One gate per worker process; `close()` ends its reader.
    """

    def __init__(self, *, every_frame: bool = False, hold_faces: bool = False) -> None:
        self._every_frame = every_frame
        self._hold_faces = hold_faces

    def __enter__(self) -> PixelGate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def engine(self) -> str:
        """Name and version of the engine, for reports; "" where there is none."""
        return ""

    def examine(self, series: Sequence[Instance]) -> tuple[Verdict, ...]:
        """One verdict per instance of one series, in order. Never raises for what a file holds.

        A BLACKED_OUT file was rewritten where it stands (same identity, same header but for transfer syntax and what
        goes with it). A file that was read and is CLEAN or BLACKED_OUT says so in its header: code 113101 and
        BurnedInAnnotation NO. A file for REVIEW keeps its bytes and claims nothing.
        """
        return tuple(self._without_engine(instance) for instance in series)

    @staticmethod
    def _without_engine(instance: Instance) -> Verdict:
        if not needs_check(instance.facts):
            return Verdict(State.CLEAN)  # (1)
        return Verdict(State.REVIEW, PixelFinding.NOT_CHECKED)  # (2)

    def close(self) -> None:
        """End the reader process. Safe to repeat."""

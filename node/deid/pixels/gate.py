"""The pixel gate: de-identified files in, a verdict for each out; files with text are rewritten in place.

1. A file that needs no check is left alone: CLEAN, nothing read.
2. Without the engine or its pinned models every other file goes to review.
3. Where text is usual, each file is looked at by itself; the rest of a series together, as if they were frames.
4. What kills the reader process, or hangs it, goes to review; the process is started again for the next.
5. What its maker says has text (BurnedInAnnotation YES) never passes as having none: then a person looks.
6. Where the profile demands it, a thin-slice head scan goes to review whatever its text: nobody defaced it.
7. Before all that, what only a decoder can say of a compressed stream is asked: whether it holds more than its
   pictures. Then it is written again without; what nothing decodes goes to review.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from node.deid.pixels import ocr
from node.deid.pixels.faces import shows_face
from node.deid.pixels.reader import ReaderDied, ReaderProcess
from node.deid.pixels.values import (
    Instance,
    PixelFinding,
    PixelState,
    PixelVerdict,
    doubt_matters,
    is_text_risk,
    needs_check,
)

_NOT_CHECKED = PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_CHECKED)
# Some 500 MB of slices; a longer series is looked at in parts.
_TOGETHER = 1024


class PixelGate:
    """Looks at the pixels of series, in a process of its own that it starts when first needed.

    `read_text` false: nothing is read, and every file that needs a look goes to review, as without an engine.
    `every_frame`: read each frame instead of projections (`--ocr every-frame`). `hold_faces`: the profile demands
    that recognisable faces are gone. `models`: where the models lie, if not in the engine's package; other models than
    the pinned ones are no engine. One gate per worker process; `close()` ends its reader.
    """

    def __init__(
        self,
        *,
        read_text: bool = True,
        every_frame: bool = False,
        hold_faces: bool = False,
        models: Path | None = None,
        reader: ReaderProcess | None = None,
    ) -> None:
        self._every_frame = every_frame
        self._hold_faces = hold_faces
        self._models = models
        self._reader = reader or ReaderProcess()
        self._installed: bool | None = None if read_text else False

    def __enter__(self) -> PixelGate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def engine(self) -> str:
        """Name and version of the engine, for reports; "" where it or a pinned model is missing."""
        if self._installed is None:
            self._installed = ocr.installed(self._models)
        return f"rapidocr-onnxruntime {ocr.VERSION}" if self._installed else ""

    @property
    def reader_pid(self) -> int | None:
        """Process id of the reader, while it runs."""
        return self._reader.pid

    def examine(self, series: Sequence[Instance]) -> tuple[PixelVerdict, ...]:
        """One verdict per instance of one series, in order. Never raises for what a file holds.

        A BLACKED_OUT file was rewritten where it stands (same identity, same header but for transfer syntax and what
        goes with it). A file that was read and is CLEAN or BLACKED_OUT says so in its header: code 113101 and
        BurnedInAnnotation NO. A file for REVIEW keeps its bytes and claims nothing.
        """
        settled = [self._settled(instance) for instance in series]
        clear = [place for place, verdict in enumerate(settled) if verdict.state is PixelState.CLEAN]
        verdicts = dict(enumerate(settled))
        for number, verdict in self._judge([series[place] for place in clear]):
            place = clear[number]
            verdicts[place] = replace(verdict, masked=settled[place].masked)
        return tuple(verdicts[place] for place in range(len(series)))

    def _settled(self, instance: Instance) -> PixelVerdict:
        """(7)"""
        if not instance.doubtful:
            return PixelVerdict(PixelState.CLEAN)
        if not self.engine:
            return _NOT_CHECKED
        try:
            more = self._reader.settle(instance.path)
        except ReaderDied:
            self._tidy([instance])
            more = None
        if more is None:
            return PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_DECODED)
        return PixelVerdict(PixelState.CLEAN, masked=more)

    def _judge(self, series: Sequence[Instance]) -> Iterator[tuple[int, PixelVerdict]]:
        together: list[int] = []
        for place, instance in enumerate(series):
            if self._hold_faces and instance.facts.has_pixels and shows_face(instance.path):
                yield place, PixelVerdict(PixelState.REVIEW, PixelFinding.RECOGNISABLE_FACE)  # (6)
            elif not needs_check(instance.facts):
                yield place, PixelVerdict(PixelState.CLEAN)  # (1)
            elif not self.engine:
                yield place, _NOT_CHECKED  # (2)
            elif instance.facts.burned_in.strip().upper() == "YES":
                yield place, self._ask_where_text_is(instance)  # (5)
            elif is_text_risk(instance.facts):
                yield place, self._ask([instance])[0]  # (3)
            else:
                together.append(place)
        for start in range(0, len(together), _TOGETHER):
            part = together[start : start + _TOGETHER]
            yield from zip(part, self._ask([series[place] for place in part]), strict=True)

    def _ask_where_text_is(self, instance: Instance) -> PixelVerdict:
        path = instance.path
        before = path.with_name(path.name + ".was")
        before.unlink(missing_ok=True)  # of a process that died over it
        os.link(path, before)  # a file that is found clean is replaced, and says so; this one must not
        try:
            verdict = self._ask([instance])[0]
            if verdict.state is not PixelState.CLEAN:
                return verdict
            os.replace(before, path)
            return PixelVerdict(PixelState.REVIEW, PixelFinding.TEXT_UNREADABLE, read=verdict.read)
        finally:
            before.unlink(missing_ok=True)

    def _ask(self, instances: Sequence[Instance]) -> list[PixelVerdict]:
        doubt = any(doubt_matters(instance.facts) for instance in instances)
        try:
            paths = [instance.path for instance in instances]
            return self._reader.ask(paths, every_frame=self._every_frame, doubt=doubt)
        except ReaderDied:
            self._tidy(instances)
            if len(instances) == 1:
                return [_NOT_CHECKED]  # (4)
            return [self._ask([instance])[0] for instance in instances]

    @staticmethod
    def _tidy(instances: Sequence[Instance]) -> None:
        """Take away the copies a process left that died over them."""
        for instance in instances:
            for ending in (".px", ".cut"):
                instance.path.with_name(instance.path.name + ending).unlink(missing_ok=True)

    def close(self) -> None:
        """End the reader process. Safe to repeat."""
        self._reader.close()

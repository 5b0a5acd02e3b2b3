"""The pixel gate: de-identified files in, a verdict for each out; files with text are rewritten in place.

1. Every picture is looked at, whatever its header says of text, and no mask is; where somebody decided to believe
   BurnedInAnnotation NO, what says it is left alone: CLEAN, nothing read, `unseen`.
2. Without the engine or its pinned models every picture that must be looked at goes to review.
3. Where text is usual, and of localizers, each file is read by itself; computed pictures of a series together, as if
   they were frames; the slices of a series get a quick look, and what that suspects is read (`look_first`).
4. What kills the reader process, or hangs it, goes to review; the process is started again for the next.
5. What its maker says has text (BurnedInAnnotation YES) never passes as having none: then a person looks.
6. Where the profile demands it, a thin-slice head scan goes to review whatever its text: nobody defaced it.
7. Before all that, what only a decoder can say of a compressed stream is asked: whether it holds more than its
   pictures. Then it is written again without; what nothing decodes goes to review.
8. With several readers, files and parts of a series are looked at side by side; the verdicts are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
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
    is_mask,
    is_overview,
    is_slice,
    is_text_risk,
    needs_check,
)

_NOT_CHECKED = PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_CHECKED)
# Some 500 MB of slices; a longer series is looked at in parts.
_TOGETHER = 1024
# Two chunks of slices: readers that share a series end at nearly the same time.
_SLICES = 64

Task = tuple[list[int], Callable[[ReaderProcess], list[PixelVerdict]]]
"""Places in a series, and what a reader is asked about them."""


class PixelGate:
    """Looks at the pixels of series, in processes of their own that it starts when first needed.

    `read_text` false: nothing is read, and every file that needs a look goes to review, as without an engine.
    `every_frame`: read each frame instead of looking quickly or at projections (`--ocr every-frame`). `believe_no`: see
    `needs_check`. `hold_faces`: the profile demands that recognisable faces are gone. `models`: where the models lie,
    if not in the engine's package; other models than the pinned ones are no engine. One gate per worker process;
    `close()` ends its readers.
    """

    def __init__(
        self,
        *,
        read_text: bool = True,
        every_frame: bool = False,
        believe_no: bool = False,
        hold_faces: bool = False,
        models: Path | None = None,
        readers: Sequence[ReaderProcess] = (),
    ) -> None:
        self._every_frame = every_frame
        self._believe_no = believe_no
        self._hold_faces = hold_faces
        self._models = models
        self._readers = list(readers) or [ReaderProcess()]
        self._free: SimpleQueue[ReaderProcess] = SimpleQueue()
        for reader in self._readers:
            self._free.put(reader)
        self._threads = ThreadPoolExecutor(len(self._readers))
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
        """Process id of the first of them that runs."""
        return next(iter(self.reader_pids), None)

    @property
    def reader_pids(self) -> list[int]:
        """Process ids of the readers that run."""
        return [reader.pid for reader in self._readers if reader.pid is not None]

    def examine(self, series: Sequence[Instance]) -> tuple[PixelVerdict, ...]:
        """One verdict per instance of one series, in order. Never raises for what a file holds.

        A BLACKED_OUT file was rewritten where it stands (same identity, same header but for transfer syntax and what
        goes with it). A file that was looked at and is CLEAN or BLACKED_OUT says so in its header: code 113101 and
        BurnedInAnnotation NO. A file for REVIEW keeps its bytes and claims nothing.
        """
        doubtful = [([place], partial(self._settled, one)) for place, one in enumerate(series) if one.doubtful]
        if doubtful and self.engine:
            settled = dict(self._side_by_side(doubtful))
        else:
            settled = {place: _NOT_CHECKED for (place,), _ask in doubtful}
        clear = [one for one in range(len(series)) if one not in settled or settled[one].state is PixelState.CLEAN]
        verdicts = dict(settled)
        for number, verdict in self._judge([series[place] for place in clear]):
            place = clear[number]
            verdicts[place] = replace(verdict, masked=place in settled and settled[place].masked)
        return tuple(verdicts[place] for place in range(len(series)))

    def _settled(self, instance: Instance, reader: ReaderProcess) -> list[PixelVerdict]:
        """(7)"""
        try:
            more = reader.settle(instance.path)
        except ReaderDied:
            self._tidy([instance])
            more = None
        if more is None:
            return [PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_DECODED)]
        return [PixelVerdict(PixelState.CLEAN, masked=more)]

    def _judge(self, series: Sequence[Instance]) -> Iterator[tuple[int, PixelVerdict]]:
        alone: list[Task] = []
        computed: list[int] = []
        slices: list[int] = []
        for place, instance in enumerate(series):
            facts = instance.facts
            if self._hold_faces and facts.has_pixels and shows_face(instance.path):
                yield place, PixelVerdict(PixelState.REVIEW, PixelFinding.RECOGNISABLE_FACE)  # (6)
            elif not needs_check(facts, believe_no=self._believe_no):
                yield place, PixelVerdict(PixelState.CLEAN, unseen=facts.has_pixels and not is_mask(facts))  # (1)
            elif not self.engine:
                yield place, _NOT_CHECKED  # (2)
            elif facts.burned_in.strip().upper() == "YES":
                alone.append(([place], partial(self._ask_where_text_is, instance)))  # (5)
            elif is_slice(facts) and not self._every_frame:
                slices.append(place)
            elif is_text_risk(facts) or is_overview(facts):
                alone.append(([place], partial(self._ask, [instance])))  # (3)
            else:
                computed.append(place)
        parts = [*_parts(slices, _SLICES, True), *_parts(computed, _TOGETHER, False)]
        together = [(part, partial(self._ask, [series[place] for place in part], quick=quick)) for part, quick in parts]
        yield from self._side_by_side([*alone, *together])

    def _side_by_side(self, tasks: Sequence[Task]) -> Iterator[tuple[int, PixelVerdict]]:
        """(8)"""
        under_way = [(places, self._threads.submit(self._with_a_reader, ask)) for places, ask in tasks]
        try:
            for places, verdicts in under_way:
                yield from zip(places, verdicts.result(), strict=True)
        finally:
            waiting = [verdicts for _places, verdicts in under_way if not verdicts.cancel()]
            wait(waiting)  # when one raised, the others still work on their files

    def _with_a_reader(self, ask: Callable[[ReaderProcess], list[PixelVerdict]]) -> list[PixelVerdict]:
        reader = self._free.get()
        try:
            return ask(reader)
        finally:
            self._free.put(reader)

    def _ask_where_text_is(self, instance: Instance, reader: ReaderProcess) -> list[PixelVerdict]:
        path = instance.path
        before = path.with_name(path.name + ".was")
        before.unlink(missing_ok=True)  # of a process that died over it
        os.link(path, before)  # a file that is found clean is replaced, and says so; this one must not
        try:
            (verdict,) = self._ask([instance], reader)
            if verdict.state is not PixelState.CLEAN:
                return [verdict]
            os.replace(before, path)
            return [PixelVerdict(PixelState.REVIEW, PixelFinding.TEXT_UNREADABLE, read=verdict.read)]
        finally:
            before.unlink(missing_ok=True)

    def _ask(self, instances: Sequence[Instance], reader: ReaderProcess, *, quick: bool = False) -> list[PixelVerdict]:
        doubt = any(doubt_matters(instance.facts) for instance in instances)
        try:
            paths = [instance.path for instance in instances]
            return reader.ask(paths, every_frame=self._every_frame, doubt=doubt, quick=quick)
        except ReaderDied:
            self._tidy(instances)
            if len(instances) == 1:
                return [_NOT_CHECKED]  # (4)
            return [self._ask([instance], reader, quick=quick)[0] for instance in instances]

    @staticmethod
    def _tidy(instances: Sequence[Instance]) -> None:
        """Take away the copies a process left that died over them."""
        for instance in instances:
            for ending in (".px", ".cut"):
                instance.path.with_name(instance.path.name + ending).unlink(missing_ok=True)

    def close(self) -> None:
        """End the reader processes. Safe to repeat."""
        for reader in self._readers:
            reader.close()


def _parts(places: Sequence[int], most: int, quick: bool) -> Iterator[tuple[list[int], bool]]:
    """Runs of nearly equal length, at most so long: none is so short that its few are read one by one."""
    count = -(-len(places) // most)
    for part in range(count):
        yield list(places[len(places) * part // count : len(places) * (part + 1) // count]), quick

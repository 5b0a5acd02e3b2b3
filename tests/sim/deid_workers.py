"""Gate 0's workers without processes of their own, and parts that a worker may be given instead of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from node.deid.engine import ProfileEngine
from node.deid.parts import Parts, parts_of
from node.deid.pipeline import Batch, Done, File, Result, Search, Survey
from node.deid.pixels import Instance, PixelGate, PixelState, PixelVerdict
from node.deid.pixels.reader import ReaderProcess
from node.deid.worker import Worker
from node.deid.worker_settings import Settings


class InProcess:
    """Implements `node.deid.pipeline.Workers` in the process that asks: no limits, and nothing survives its death."""

    def __init__(self, settings: Settings) -> None:
        self._counts = [0, 0]
        self._worker = Worker(settings, self._count)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def _count(self, what: int) -> None:
        self._counts[what] += 1

    @property
    def under_way(self) -> tuple[int, int]:
        return self._counts[0], self._counts[1]

    def survey(self, files: Iterable[File]) -> Iterator[Survey]:
        return map(self._worker.survey, files)

    def run(self, batches: Iterable[Batch]) -> Iterator[Done]:
        return map(self._worker.run, batches)

    def search_again(self, searches: Iterable[Search]) -> Iterator[tuple[Result, ...]]:
        return map(self._worker.search, searches)

    def look(self, series: Iterable[Sequence[Path]]) -> Iterator[tuple[str, ...]]:
        return map(self._worker.look, series)


def started(parts: Callable[[Settings, Callable[[], None]], Parts] = parts_of) -> Callable[[Settings], InProcess]:
    """Starts workers in this process that work with these parts."""
    return lambda settings: InProcess(replace(settings, parts=parts))


class NobodyLooks:
    """For tests about headers: finds nothing in any pixels."""

    def examine(self, series: Sequence[Instance]) -> tuple[PixelVerdict, ...]:
        return tuple(PixelVerdict(PixelState.CLEAN) for _ in series)

    def close(self) -> None:
        pass


def headers_only(settings: Settings, on_picture: Callable[[], None]) -> Parts:
    """The real engine; nobody looks at pixels."""
    return replace(parts_of(settings, on_picture), pixels=NobodyLooks())


def no_text_engine(settings: Settings, on_picture: Callable[[], None]) -> Parts:
    """The pixel gate of a machine on which the text engine's models are not the pinned ones."""
    pixels = PixelGate(models=Path("/nonexistent"), readers=[ReaderProcess(on_picture=on_picture)])
    return replace(parts_of(settings, on_picture), pixels=pixels)


class DefectiveEngine(ProfileEngine):
    """Has a defect of ours: it takes one attribute for another in files that have a certain description."""

    def begin(self, source, subject, path, *, hash_pixels=False):  # type: ignore[no-untyped-def]
        if any(b"DEFECT" in raw for _tag, _vr, raw, _start in source.parsed.elements):
            return source.no_such_attribute
        return super().begin(source, subject, path, hash_pixels=hash_pixels)


def defective(settings: Settings, on_picture: Callable[[], None]) -> Parts:
    """An engine with a planted defect, as a new version of ours might have."""
    parts = parts_of(settings, on_picture)
    parts.engine.__class__ = DefectiveEngine
    return replace(parts, pixels=NobodyLooks())


class DefectiveSurvey(ProfileEngine):
    """Has the defect where it is asked whose a file is."""

    def named(self, source, *, whole):  # type: ignore[no-untyped-def]
        if any(b"DEFECT" in raw for _tag, _vr, raw, _start in source.parsed.elements):
            return source.no_such_attribute
        return super().named(source, whole=whole)


def surveyed_with_a_defect(settings: Settings, on_picture: Callable[[], None]) -> Parts:
    """An engine that cannot say whose some files are."""
    parts = parts_of(settings, on_picture)
    parts.engine.__class__ = DefectiveSurvey
    return replace(parts, pixels=NobodyLooks())


class DefectiveSearcher:
    """Has a defect of ours, over files of a certain description."""

    def __init__(self, searcher) -> None:  # type: ignore[no-untyped-def]
        self._searcher = searcher
        self.lost = searcher.lost

    def finds(self, path: Path, name: str = "") -> bool:
        if b"PELVIS" in path.read_bytes():
            raise KeyError
        return bool(self._searcher.finds(path, name))


def never_searched(settings: Settings, on_picture: Callable[[], None]) -> Parts:
    """An engine whose residual search has a planted defect."""
    parts = replace(parts_of(settings, on_picture), pixels=NobodyLooks())
    searcher = parts.engine.searcher
    parts.engine.searcher = lambda: DefectiveSearcher(searcher())  # type: ignore[assignment,return-value]
    return parts

"""A worker: the engine, the pixel gate and gate 0 over a batch of files; in a process of its own that has limits.

Every file is de-identified into its sink's hidden folder, once more where others of its patient's say whose name its
texts hold, then each series' pixels are judged, then each file is searched for what the files after it lost, then it
goes to its place. The process's memory has a limit, so a hostile file ends one worker and not the run.

What a file can do to us is declared (`_DECLARED`, `OSError`, `MemoryError`), and is a finding. Everything else is a
defect of ours: it is logged by class and place, and the file waits for us as `our_defect`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from mediator.deid.identifiers import Lost
from mediator.deid.screening import Exclusion, Note
from mediator.errors import IntegrityBroken, UsageFault
from node.deid.copiers import UNDER_WAY
from node.deid.deidentify import FileSearcher, Finished, Gate0, groups, misnamed, suspects, withdrawn
from node.deid.outcome import GateOutcome, Identity
from node.deid.parts import Parts, parts_of
from node.deid.pipeline import (
    NOT_LOOKED_AT,
    Batch,
    Done,
    File,
    InstanceSink,
    NoRoom,
    Placed,
    Result,
    Search,
    Survey,
    Trace,
    refused,
)
from node.deid.pixels import Instance, PixelFinding, PixelState, PixelVerdict, needs_check
from node.deid.pixels.faces import shows_face
from node.deid.pixels.layout import MalformedStream
from node.deid.pixels.series import integrity, read_slice
from node.deid.rewrite import TooMuch
from node.deid.sinks import move
from node.deid.slices import SliceReader
from node.deid.stream import Original
from node.deid.structure import Unreadable
from node.deid.worker_settings import Settings
from node.host.disk_errors import is_full

log = logging.getLogger(__name__)

T = TypeVar("T")
# what a file, or what stands for it, can be: a finding, and no surprise
_DECLARED: Mapping[type[Exception], Exclusion] = {
    MalformedStream: Exclusion.PIXELS_INCONSISTENT,
    TooMuch: Exclusion.UNREADABLE,  # even what its patient's other files lost is more than can be searched for
    IntegrityBroken: Exclusion.UNREADABLE,
    UsageFault: Exclusion.NOT_A_FILE,
}
_NOT_READ = PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_CHECKED)


def _ignored(_what: int) -> None:
    """Nobody counts."""


class Worker:
    """One process's engine, pixel gate and gate 0."""

    def __init__(self, settings: Settings, count: Callable[[int], None] = _ignored) -> None:
        """`count` is told of each file converted (0) and picture read (1)."""
        self._count = count
        self._settings = settings
        parts: Parts = (settings.parts or parts_of)(settings, partial(count, 1))
        self._ahead = UNDER_WAY if settings.copiers else 0
        self._engine = parts.engine
        self._pixels = parts.pixels
        self._gate = Gate0(parts.engine, settings.pseudonyms, settings.site, review=settings.review)

    def close(self) -> None:
        """End the pixel reader."""
        self._pixels.close()

    def survey(self, file: File) -> Survey:
        """Whose a file is, and the names and numbers it holds."""
        if file.refused is not None:
            return Survey(file.number, exclusion=file.refused)
        found = self._attempt(file.label, lambda: self._surveyed(file))
        self._gate.forget()
        return Survey(file.number, exclusion=found.value) if isinstance(found, Exclusion) else found

    def _surveyed(self, file: File) -> Survey:
        original = self._settings.source.open(file.path)
        try:
            identity, named, reason = self._gate.survey(original)
        finally:
            original.close()
        refused_for = reason.value if reason is not None else None
        return Survey(file.number, identity, tuple(named), refused_for, tuple(self._gate.issued()))

    def run(self, batch: Batch) -> Done:
        """What became of each file, in order; and what they lost, by patient and study. Raises `NoRoom`."""
        batch.sink.begin(batch.files)
        self._gate.expect(batch.known, batch.issuers)
        placed = {}
        for number, done in self._converted(batch):
            placed[number] = done
            self._count(0)
        together = self._attempt(_span(batch.files), lambda: self._together(batch, placed), one_file=len(placed) == 1)
        self._gate.forget()
        if isinstance(together, Exclusion):  # nobody can vouch for any of them
            return Done(tuple(_refused(number, _give_up(done, together)) for number, done in placed.items()))
        verdicts, traces = together
        return Done(tuple(self._finish(batch.sink, n, done, verdicts.get(n)) for n, done in placed.items()), traces)

    def _together(
        self, batch: Batch, placed: dict[int, GateOutcome]
    ) -> tuple[dict[int, PixelVerdict], tuple[Trace, ...]]:
        """What only all files of a batch together can tell."""
        self._issue_again(batch, placed)
        self._make_again(batch, placed)
        verdicts = self._examine(placed)
        return verdicts, tuple(self._hold(batch, placed))

    def search(self, search: Search) -> tuple[Result, ...]:
        """Files in their places searched for what is fresh; those that hold it not by chance are taken away. What met a
        defect of ours stands, for whoever asked to take back: nobody knows what it holds."""
        searcher = self._engine.searcher()
        searcher.lost(search.fresh)
        found = []
        for placed in search.files:
            reason = self._attempt(placed.file.label, partial(self._found, searcher, placed, search.fresh))
            if reason is not None:
                if reason is not Exclusion.OUR_DEFECT:
                    placed.path.unlink(missing_ok=True)
                found.append(refused(placed.file.number, reason))
        self._gate.forget()
        return tuple(found)

    def _found(self, searcher: FileSearcher, placed: Placed, fresh: Sequence[Lost]) -> Exclusion | None:
        if not placed.path.exists():  # by a search that was broken off
            return Exclusion.RESIDUAL_IDENTIFIER
        if not searcher.finds(placed.path, placed.name):
            return None
        return self._looked_at_again(placed.file, fresh, placed.path)

    def look(self, paths: Sequence[Path]) -> tuple[str, ...]:
        """Findings on one series of finished files, from the headers we wrote."""
        reader = SliceReader(self._engine.vr_of)
        slices = [reader.read(path) for path in paths]
        if None in slices:
            slices = [read_slice(path) for path in paths]
        return tuple(sorted({finding.value for findings in integrity(slices).values() for finding in findings}))

    def _issue_again(self, batch: Batch, placed: dict[int, GateOutcome]) -> None:
        """Files made as another patient's, before others of their study said who issued the id."""
        for file in batch.files:
            before = placed[file.number]
            if before.path is not None and self._gate.is_of_another(before):
                before.path.unlink()
                done = self._begin(batch.sink, file)()
                placed[file.number] = replace(done, lost=(*before.lost, *done.lost))

    def _make_again(self, batch: Batch, placed: dict[int, GateOutcome]) -> None:
        """Files with names in their texts that only others of the batch say are somebody's."""
        mine, finished = _of_patients(batch, placed)
        for place, named in misnamed(finished, self._engine):
            file, before = mine[place], placed[mine[place].number]
            if before.path is not None:
                before.path.unlink()
            done = self._begin(batch.sink, file, named)()
            placed[file.number] = replace(done, identity=before.identity, lost=(*before.lost, *done.lost))

    def _hold(self, batch: Batch, placed: dict[int, GateOutcome]) -> Iterator[Trace]:
        """Files that hold what only later ones of the batch lost are refused; what all of them lost comes back."""
        mine, finished = _of_patients(batch, placed)
        for place, lost in suspects(finished, self._engine):
            file, done = mine[place], placed[mine[place].number]
            if done.path is None:
                continue
            reason = self._attempt(file.label, partial(self._looked_at_again, file, lost, done.path))
            if reason is not None:
                placed[file.number] = withdrawn(done, reason)
        for group in groups([one.keys for one in finished]):
            outcomes = [placed[mine[place].number] for place in group]
            yield Trace(
                tuple(mine[place].number for place in group if placed[mine[place].number].path is not None),
                tuple(sorted({key for done in outcomes for key in done.identity.keys})),
                tuple({value for done in outcomes for value in done.lost}),
            )

    def _looked_at_again(self, file: File, lost: Sequence[Lost], path: Path) -> Exclusion | None:
        """Why a file must not stand, now that more is known to be lost."""
        original = self._settings.source.open(file.path)
        try:
            return self._gate.again(original, lost, path)
        finally:
            original.close()

    def _converted(self, batch: Batch) -> Iterator[tuple[int, GateOutcome]]:
        """Where each file's output waits and should go, in order; or why there is none."""
        under_way: deque[tuple[int, Callable[[], GateOutcome]]] = deque()
        try:
            for file in batch.files:
                under_way.append((file.number, self._begin(batch.sink, file)))
                if len(under_way) > self._ahead:
                    number, finish = under_way.popleft()
                    yield number, finish()
            while under_way:
                number, finish = under_way.popleft()
                yield number, finish()
        finally:
            for _number, finish in under_way:  # the run ends: nothing stays open
                with suppress(NoRoom):
                    finish()

    def _begin(self, sink: InstanceSink, file: File, known: Sequence[Lost] = ()) -> Callable[[], GateOutcome]:
        if file.refused is not None:
            return partial(_no_outcome, Exclusion(file.refused))
        original = self._attempt(file.label, lambda: self._settings.source.open(file.path))
        if isinstance(original, Exclusion):
            return partial(_no_outcome, original)
        drafts: list[Path] = []

        def draft(identity: Identity) -> str:
            name = sink.draft(file.number, identity)
            drafts.append(sink.partial / name)
            return name

        begun = self._attempt(
            file.label, lambda: self._gate.begin(original, sink.partial, draft, known), self._removed(drafts)
        )
        if isinstance(begun, Exclusion):
            original.close()
            return partial(_no_outcome, begun)
        return partial(self._end, file, original, drafts, begun)

    def _end(self, file: File, original: Original, drafts: list[Path], begun: Callable[[], GateOutcome]) -> GateOutcome:
        try:
            done = self._attempt(file.label, begun, self._removed(drafts))
        finally:
            original.close()
        return _no_outcome(done) if isinstance(done, Exclusion) else done

    @staticmethod
    def _removed(drafts: Sequence[Path]) -> Callable[[], None]:
        def remove() -> None:
            for path in drafts:
                path.unlink(missing_ok=True)

        return remove

    def _attempt(
        self, label: str, work: Callable[[], T], undo: Callable[[], None] = lambda: None, *, one_file: bool = True
    ) -> T | Exclusion:
        """The work's result, or why there is none, when `undo` was called. Raises `NoRoom` for a full disk; of several
        files at once also `MemoryError` and `OSError`, for nobody knows which of them it was."""
        try:
            return work()
        except NoRoom:
            raise
        except MemoryError:
            if not one_file:
                raise
            reason = Exclusion.TOO_LARGE
        except OSError as error:
            if is_full(error) or error.errno == errno.EROFS:
                beside = " to write beside DST" if self._settings.review else ""
                raise NoRoom(f"no room left{beside}", hint="make room and run it again") from None
            if not one_file:
                raise
            reason = Exclusion.UNREADABLE
        except Unreadable as problem:
            reason = problem.finding
        except tuple(_DECLARED) as error:
            reason = next(why for kind, why in _DECLARED.items() if isinstance(error, kind))
        except Exception as error:
            log.error("%s our_defect", label, exc_info=error)
            reason = Exclusion.OUR_DEFECT
        undo()
        return reason

    def _examine(self, placed: dict[int, GateOutcome]) -> dict[int, PixelVerdict]:
        """The pixels of what may pass, series by series; whatever is in review already is for a person to see."""
        series: dict[str, list[tuple[int, Instance]]] = {}
        found: dict[int, PixelVerdict] = {}
        for number, done in tuple(placed.items()):
            if done.place == "pass" and done.path and done.facts.has_pixels:
                if self._settings.defaced_by and shows_face(done.path):
                    placed[number] = replace(done, notes=(*done.notes, Note.DEFACED_BEFORE))
                if self._settings.ocr == "off" and needs_check(done.facts, believe_no=True):
                    found[number] = _NOT_READ
                else:
                    series.setdefault(done.identity.series, []).append(
                        (number, Instance(done.path, done.facts, done.doubtful))
                    )
        for members in series.values():
            verdicts = self._pixels.examine([instance for _, instance in members])
            found |= {number: verdict for (number, _), verdict in zip(members, verdicts, strict=True)}
        if not self._settings.review:  # nobody is there to look
            for number, verdict in found.items():
                if verdict.state is PixelState.REVIEW:
                    placed[number] = withdrawn(placed[number], Exclusion(_why(verdict).value))
        return found

    def _finish(self, sink: InstanceSink, number: int, done: GateOutcome, verdict: PixelVerdict | None) -> Result:
        """Into its place, if nothing speaks against it. Raises `NoRoom`."""
        if done.path is None:
            return _refused(number, done)
        path = done.path
        result = self._attempt(
            f"src#{number:04d}",
            lambda: self._finished(sink, number, done, path, verdict),
            lambda: path.unlink(missing_ok=True),
        )
        return refused(number, result, done.identity) if isinstance(result, Exclusion) else result

    def _finished(
        self, sink: InstanceSink, number: int, done: GateOutcome, path: Path, verdict: PixelVerdict | None
    ) -> Result | Exclusion:
        reasons = tuple(reason.value for reason in done.reasons)
        name = sink.name(done.identity)
        outcome: Literal["written", "review"] = "review" if done.place == "review" else "written"
        notes = tuple(note.value for note in done.notes)
        if verdict is not None and verdict.masked:
            notes = (*notes, Note.BITS_MASKED.value)
        if verdict is not None and verdict.unseen:
            notes = (*notes, Note.PIXELS_NOT_LOOKED_AT.value)
        result = Result(
            number,
            outcome,
            reasons,
            name,
            pardoned=done.pardoned,
            missed=done.missed,
            notes=notes,
            identity=done.identity,
        )
        if verdict is not None and verdict.unseen:
            result = replace(result, pixels=NOT_LOOKED_AT)
        elif verdict is not None and (verdict.read or verdict.state is not PixelState.CLEAN):
            regions = tuple((r.frame, r.left, r.top, r.right, r.bottom) for r in verdict.regions)
            result = replace(result, pixels=verdict.state.value, regions=regions)
            if verdict.state is PixelState.REVIEW:
                result = replace(result, outcome="review", reasons=(_why(verdict).value,))
        if not _is_first(sink, number, name):
            path.unlink()
            return Exclusion.DUPLICATE_INSTANCE
        there = sink.place(name, review=result.outcome == "review")
        return result if move(path, there) else Exclusion.OUTPUT_EXISTS


def _why(verdict: PixelVerdict) -> PixelFinding:
    return verdict.finding or PixelFinding.NOT_CHECKED


def _is_first(sink: InstanceSink, number: int, name: str) -> bool:
    """Whether no other file of this run was this instance; a mark says so to every worker."""
    mark = sink.partial / f"{os.path.basename(name)}.mark"
    try:
        mark.symlink_to(str(number))  # a link that leads nowhere holds the number
    except FileExistsError:
        return os.readlink(mark) == str(number)  # ours, from a worker that died
    return True


def _of_patients(batch: Batch, placed: Mapping[int, GateOutcome]) -> tuple[list[File], list[Finished]]:
    """The files of which it is known whose they are, and what is asked of each."""
    mine = [file for file in batch.files if placed[file.number].identity.keys]
    outcomes = [placed[file.number] for file in mine]
    return mine, [Finished(one.path, one.identity.keys, one.lost, batch.sink.name(one.identity)) for one in outcomes]


def _no_outcome(reason: Exclusion) -> GateOutcome:
    return GateOutcome("refuse", (reason,))


def _refused(number: int, done: GateOutcome) -> Result:
    return Result(number, "refused", tuple(reason.value for reason in done.reasons), identity=done.identity)


def _give_up(done: GateOutcome, reason: Exclusion) -> GateOutcome:
    """A file of a batch that could not be finished; what was refused by itself stays so."""
    return withdrawn(done, reason) if done.path is not None else done


def _span(files: Sequence[File]) -> str:
    return files[0].label if len(files) == 1 else f"{files[0].label} to {files[-1].label}"

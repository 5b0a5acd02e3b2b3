"""A worker process of `cloister deid run`: the engine, the pixel gate and gate 0 over a batch of files.

Every file is de-identified into a hidden folder beside DST, once more where others of its patient's say whose name its
texts hold, then each series' pixels are judged, then each file is searched for what the files after it lost, then it
goes to its place. The process's memory has a limit, so a hostile
file ends one worker and not the run.
"""

from __future__ import annotations

import errno
import filecmp
import os
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from mediator.deid.identifiers import Identifier, Lost
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ProfileTable
from mediator.errors import NotNow, UsageFault
from node.deid import source_folder as folder
from node.deid.copiers import SWITCH_S, UNDER_WAY, Copiers
from node.deid.deidentify import Finished, Gate0, Placement, groups, misnamed, suspects
from node.deid.deidentify_folder import File, OutputFolders, Result
from node.deid.engine import ProfileEngine
from node.deid.limits import limit_memory
from node.deid.pixels import Instance, PixelFinding, PixelGate, PixelState, PixelVerdict, needs_check
from node.deid.pixels.reader import ReaderProcess
from node.deid.pixels.series import integrity, read_slice
from node.deid.profiles import load_profile, load_profile_file, standard
from node.deid.slices import SliceReader
from node.host.disk_errors import is_full

T = TypeVar("T")
Survey = tuple[tuple[str, ...], list[Identifier]]
"""A patient and a study by their pseudonyms, and names and numbers."""
Known = Mapping[str, Sequence[Identifier]]
"""Names and numbers by a patient's pseudonym."""
Counts: TypeAlias = "SynchronizedArray[int]"
"""Shared by all workers: files converted, and pictures read, so far."""
Ocr = Literal["auto", "every-frame", "off"]


@dataclass(frozen=True)
class Settings:
    """All a worker needs. `profile` is a name of ours or the path of a site's own file."""

    source: str
    output: Path
    profile: str
    key: bytes = field(repr=False)
    project: str
    site: str
    ocr: Ocr = "auto"
    copiers: int = 0  # threads of a worker that copy pixels; worth it where a processor is free for them


def table_of(profile: str) -> ProfileTable:
    """A profile by name, or from a file when it is a path. Raises `UsageFault`, `Malformed`."""
    if profile.endswith(".toml") or "/" in profile:
        return load_profile_file(Path(profile))
    return load_profile(profile)


def pseudonyms(table: ProfileTable, key: bytes, project: str, site: str) -> Pseudonyms:
    """Those of stage 1 or of stage 2, as the profile says."""
    return Pseudonyms.local(key, site) if table.scope == "site" else Pseudonyms(key, project, site)


@dataclass(frozen=True)
class Trace:
    """What the files of one patient or study in a batch lost. Stays in memory: `lost` names the patient."""

    numbers: tuple[int, ...]
    keys: tuple[str, ...]
    lost: tuple[Lost, ...] = field(repr=False)

    @classmethod
    def of(cls, files: Sequence[tuple[int, Finished]]) -> Trace:
        keys = {key for _number, one in files for key in one.keys}
        return cls(
            tuple(number for number, one in files if one.path is not None),
            tuple(sorted(keys)),
            tuple({value for _number, one in files for value in one.lost}),
        )


class Worker:
    """One process's engine, pixel gate and key."""

    def __init__(self, settings: Settings, counts: Counts | None = None) -> None:
        self._counts = counts
        table = table_of(settings.profile)
        keyed = pseudonyms(table, settings.key, settings.project, settings.site)
        self._settings = settings
        self._rooms = OutputFolders(settings.output)
        copiers = Copiers(settings.copiers) if settings.copiers else None
        self._ahead = UNDER_WAY if copiers is not None else 0
        self._engine = ProfileEngine(table, standard(), copiers)
        self._gate = Gate0(self._engine, keyed, self._rooms.partial, settings.site)
        self._pixels = PixelGate(
            every_frame=settings.ocr == "every-frame",
            hold_faces="clean-visual-features" in table.options,
            reader=ReaderProcess(on_picture=partial(self._count, 1)),
        )

    def survey(self, file: File) -> Survey:
        """Whose a file is, and the names and numbers it holds; nothing of one that cannot be read."""
        try:
            handle = folder.open_inside(self._settings.source, file.path)
        except UsageFault:
            return (), []
        try:
            return self._gate.survey(handle)
        except Exception:  # noqa: BLE001 - the worker loop: what is wrong with the file is told when its turn comes
            return (), []
        finally:
            os.close(handle)
            self._gate.forget()

    def batch(self, files: Sequence[File], known: Known) -> tuple[list[Result], list[Trace]]:
        """What became of each file, in order; and what they lost, by patient and study.

        `known`: names and numbers of patients that are of use here, from the first files of other batches.
        """
        self._gate.expect(known)
        placed = {}
        for number, done in self._converted(files):
            placed[number] = done
            self._count(0)
        self._make_again(files, placed)
        verdicts = self._examine(placed)
        traces = self._hold(files, placed)
        return [self._finish(number, done, verdicts.get(number)) for number, done in placed.items()], traces

    def _count(self, what: int) -> None:
        """One more file converted (0), or picture read (1)."""
        if self._counts is not None:
            with self._counts.get_lock():
                self._counts[what] += 1

    def search_again(self, files: Places, fresh: Sequence[Lost]) -> list[Result]:
        """Files in their places searched for `fresh`; those that hold it not by chance are taken away, and told."""
        searcher = self._engine.searcher()
        searcher.lost(fresh)
        found = []
        for file, path in files:
            if searcher.finds(path, path.name) and (reason := self._again(file, fresh, path)) is not None:
                path.unlink()
                found.append(Result(file.number, "refused", (reason,)))
        return found

    def look(self, names: Sequence[str]) -> list[str]:
        """Findings on one series of DST, from the headers we wrote."""
        paths = [self._rooms.output / name for name in names]
        reader = SliceReader(self._engine.vr_of)
        slices = [reader.read(path) for path in paths]
        if None in slices:
            slices = [read_slice(path) for path in paths]
        return sorted({finding.value for findings in integrity(slices).values() for finding in findings})

    def _make_again(self, files: Sequence[File], placed: dict[int, Placement | str]) -> None:
        """Files with names in their texts that only others of the batch say are somebody's."""
        mine, finished = _finished(files, placed)
        for place, named in misnamed(finished, self._engine):
            file, before = mine[place]
            done = self._begin(file, named)()
            placed[file.number] = done if isinstance(done, str) else replace(done, lost=(*before.lost, *done.lost))

    def _hold(self, files: Sequence[File], placed: dict[int, Placement | str]) -> list[Trace]:
        """Files that hold what only later ones of the batch lost are refused; what all of them lost comes back."""
        mine, finished = _finished(files, placed)
        for place, lost in suspects(finished, self._engine):
            file, done = mine[place]
            if done.path is not None and (reason := self._again(file, lost, done.path)) is not None:
                done.path.unlink()
                placed[file.number] = reason
        self._gate.forget()
        return [
            Trace.of([(mine[place][0].number, finished[place]) for place in group])
            for group in groups([one.keys for one in finished])
        ]

    def _again(self, file: File, lost: Sequence[Lost], path: Path) -> str | None:
        """Why a file must not stand, now that more is known to be lost."""
        try:
            handle = folder.open_inside(self._settings.source, file.path)
        except UsageFault:
            return "not_a_file"
        try:
            reason = self._gate.again(handle, lost, path)
        except Exception:  # noqa: BLE001 - the worker loop: a file nobody could make again is held back
            return "unreadable"
        finally:
            os.close(handle)
        return reason.value if reason is not None else None

    def _converted(self, files: Sequence[File]) -> Iterator[tuple[int, Placement | str]]:
        """Where each file's output waits and should go, in order; a text says why there is none."""
        under_way: deque[tuple[int, Callable[[], Placement | str]]] = deque()
        try:
            for file in files:
                under_way.append((file.number, self._begin(file)))
                if len(under_way) > self._ahead:
                    number, finish = under_way.popleft()
                    yield number, finish()
            while under_way:
                number, finish = under_way.popleft()
                yield number, finish()
        finally:
            for _number, finish in under_way:  # the run ends: nothing stays open
                with suppress(NotNow):
                    finish()

    def _begin(self, file: File, known: Sequence[Lost] = ()) -> Callable[[], Placement | str]:
        if file.refused is not None:
            return partial(str, file.refused)
        name = f"{file.number}.part"
        (self._rooms.partial / name).unlink(missing_ok=True)  # of a worker that died over it
        try:
            handle = folder.open_inside(self._settings.source, file.path)
        except UsageFault:
            return partial(str, "not_a_file")
        begun = self._guarded(name, lambda: self._gate.begin(handle, name, known))
        if isinstance(begun, str):
            os.close(handle)
            return partial(str, begun)
        return partial(self._end, handle, name, begun)

    def _end(self, handle: int, name: str, begun: Callable[[], Placement]) -> Placement | str:
        try:
            return self._guarded(name, begun)
        finally:
            os.close(handle)

    def _guarded(self, name: str, work: Callable[[], T]) -> T | str:
        """The work's result, or why there is none; then nothing is left of it. Raises `NotNow` for a full disk."""
        try:
            return work()
        except MemoryError:
            reason = "too_large"
        except OSError as error:
            # the run ends: every other file would fail the same way, and none of them would be to blame
            if is_full(error) or error.errno == errno.EROFS:
                raise NotNow("no room left to write beside DST", hint="make room and run it again") from None
            reason = "unreadable"
        except Exception:  # noqa: BLE001 - the worker loop: one file nobody foresaw is held back, the rest goes on
            reason = "unreadable"
        (self._rooms.partial / name).unlink(missing_ok=True)
        return reason

    def _examine(self, placed: dict[int, Placement | str]) -> dict[int, PixelVerdict]:
        """The pixels of what may pass, series by series; whatever is in review already is for a person to see."""
        series: dict[str, list[tuple[int, Instance]]] = {}
        found: dict[int, PixelVerdict] = {}
        for number, done in placed.items():
            if isinstance(done, Placement) and done.place == "pass" and done.path and done.facts.has_pixels:
                if self._settings.ocr == "off" and needs_check(done.facts):
                    found[number] = _NOT_READ
                else:
                    series.setdefault(done.series, []).append((number, Instance(done.path, done.facts)))
        for members in series.values():
            verdicts = self._pixels.examine([instance for _, instance in members])
            found |= {number: verdict for (number, _), verdict in zip(members, verdicts, strict=True)}
        return found

    def _finish(self, number: int, done: Placement | str, verdict: PixelVerdict | None) -> Result:
        if isinstance(done, str):
            return Result(number, "refused", (done,))
        reasons = tuple(reason.value for reason in done.reasons)
        if done.path is None:
            return Result(number, "refused", reasons)
        review = done.place == "review"
        result = Result(number, "review" if review else "written", reasons, done.name, pardoned=done.pardoned)
        if verdict is not None and (verdict.read or verdict.state is not PixelState.CLEAN):
            regions = tuple((r.frame, r.left, r.top, r.right, r.bottom) for r in verdict.regions)
            result = replace(result, pixels=verdict.state.value, regions=regions)
            if verdict.state is PixelState.REVIEW:
                why = verdict.finding or PixelFinding.NOT_CHECKED
                result = replace(result, outcome="review", reasons=(why.value,))
        if not self._is_first(number, result.name):
            done.path.unlink()
            return Result(number, "refused", ("duplicate_instance",))
        room = self._rooms.review if result.outcome == "review" else self._rooms.output
        return result if _move(done.path, room / result.name) else Result(number, "refused", ("output_exists",))

    def _is_first(self, number: int, name: str) -> bool:
        """Whether no other file of this run was this instance; a mark says so to every worker."""
        mark = self._rooms.partial / f"{os.path.basename(name)}.mark"
        try:
            mark.symlink_to(str(number))  # a link that leads nowhere holds the number
        except FileExistsError:
            return os.readlink(mark) == str(number)  # ours, from a worker that died
        return True


def _finished(
    files: Sequence[File], placed: Mapping[int, Placement | str]
) -> tuple[list[tuple[File, Placement]], list[Finished]]:
    """The files of which it is known whose they are, and what is asked of each."""
    mine = [(file, done) for file in files if isinstance(done := placed[file.number], Placement) and done.keys]
    return mine, [Finished(done.path, done.keys, done.lost, done.name) for _file, done in mine]


_NOT_READ = PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_CHECKED)


def _move(path: Path, target: Path) -> bool:
    """Into place, never over another file; True also when the same file is there already."""
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        os.link(path, target, follow_symlinks=False)
        return True
    except FileExistsError:
        return not target.is_symlink() and filecmp.cmp(path, target, shallow=False)
    finally:
        path.unlink()


_worker: Worker | None = None
Batch = tuple[list[Result], list[Trace]]
Places = Sequence[tuple[File, Path]]


def start(settings: Settings, counts: Counts | None = None) -> None:
    """In a new worker process: from here on it gets a little more memory, whatever a file says, or dies alone."""
    global _worker
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patients' data
    if settings.copiers:
        sys.setswitchinterval(SWITCH_S)
    _worker = Worker(settings, counts)
    limit_memory()


def _started() -> Worker:
    if _worker is None:
        raise RuntimeError("a worker that was never started")
    return _worker


def survey(file: File) -> Survey:
    return _started().survey(file)


def run(files: Sequence[File], known: Known) -> Batch:
    return _started().batch(files, known)


def look(names: Sequence[str]) -> list[str]:
    return _started().look(names)


def run_again(files: Places, fresh: Sequence[Lost]) -> list[Result]:
    return _started().search_again(files, fresh)

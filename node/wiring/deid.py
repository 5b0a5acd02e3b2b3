"""`cloister deid run`: a folder walked, worker processes, and in each the engine, the pixel gate and gate 0.

A worker handles a batch: every file is de-identified into a hidden folder beside DST, then each series' pixels are
judged, then each file goes to its place. Its memory has a limit, so a hostile file ends one worker and not the run.
"""

from __future__ import annotations

import errno
import filecmp
import multiprocessing
import os
import resource
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mediator.deid.pseudonyms import NORMALISATION, Pseudonyms
from mediator.deid.rules import ENGINE_VERSION, Table
from mediator.deid.traceability import PSEUDONYMOUS, key_id
from mediator.errors import NotNow, UsageFault
from node.deid.engine import Engine
from node.deid.pixels import Instance, PixelFinding, PixelGate, State, Verdict, needs_check
from node.deid.pixels.series import integrity, read_slice
from node.deid.profiles import load_profile, load_profile_file, standard
from node.intake import folder
from node.usecases.deidentify import Gate0, Placement
from node.usecases.deidentify_folder import File, Result, Rooms

# A multi-frame file of 2 GB passes; what is larger than a disk image of a DVD set is no instance.
MAX_FILE_BYTES = 16 << 30
# Address space of a worker: libraries map about 1 GB; the header of any file fits in what is left.
WORKER_BYTES = 4 << 30

# The run ends: every other file would fail the same way, and none of them would be to blame.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

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


def table_of(profile: str) -> Table:
    """A profile by name, or from a file when it is a path. Raises `UsageFault`, `Malformed`."""
    if profile.endswith(".toml") or "/" in profile:
        return load_profile_file(Path(profile))
    return load_profile(profile)


def about(settings: Settings, table: Table) -> dict[str, Any]:
    """What a run's summary says of itself: how, under which key, and who could still find a person."""
    return {
        "profile": f"{table.profile}/{table.profile_version}",
        "profile_fingerprint": table.fingerprint,
        "engine": ENGINE_VERSION,
        "normalisation": NORMALISATION,
        "options": sorted(table.options),
        "project": settings.project if table.scope == "project" else "",
        "site": settings.site,
        "key": key_id(settings.key),
        "traceability": PSEUDONYMOUS,
        "ocr": settings.ocr,
        "ocr_engine": PixelGate().engine,
    }


def list_files(source: str) -> list[File]:
    """Every file below SRC in the order of its path, numbered from 1. Raises `UsageFault` when there is none."""
    found = []
    for number, entry in enumerate(folder.walk(source, largest=MAX_FILE_BYTES), start=1):
        if entry.handle is not None:
            os.close(entry.handle)
        found.append(File(number, entry.path, entry.refused.value if entry.refused else None))
    if not found:
        raise UsageFault("SRC holds no file")
    return found


class Worker:
    """One process's engine, pixel gate and key."""

    def __init__(self, settings: Settings) -> None:
        table = table_of(settings.profile)
        if table.scope == "site":
            keyed = Pseudonyms.local(settings.key, settings.site)
        else:
            keyed = Pseudonyms(settings.key, settings.project, settings.site)
        self._settings = settings
        self._rooms = Rooms(settings.output)
        self._gate = Gate0(Engine(table, standard()), keyed, self._rooms.partial, settings.site)
        self._pixels = PixelGate(
            every_frame=settings.ocr == "every-frame", hold_faces="clean-visual-features" in table.options
        )

    def batch(self, files: Sequence[File]) -> list[Result]:
        """What became of each file, in order."""
        placed = {file.number: self._convert(file) for file in files}
        verdicts = self._examine(placed)
        return [self._finish(number, done, verdicts.get(number)) for number, done in placed.items()]

    def _convert(self, file: File) -> Placement | str:
        """Where the file's output waits and should go; a text says why there is none."""
        if file.refused is not None:
            return file.refused
        name = f"{file.number}.part"
        (self._rooms.partial / name).unlink(missing_ok=True)  # of a worker that died over it
        try:
            handle = folder.open_inside(self._settings.source, file.path)
        except UsageFault:
            return "not_a_file"
        try:
            return self._gate.sort_out(handle, name)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise NotNow("no room left to write beside DST", hint="make room and run it again") from None
            (self._rooms.partial / name).unlink(missing_ok=True)
            return "unreadable"
        except Exception:  # noqa: BLE001 - the worker loop: one file nobody foresaw is held back, the rest goes on
            (self._rooms.partial / name).unlink(missing_ok=True)
            return "unreadable"
        finally:
            os.close(handle)

    def _examine(self, placed: dict[int, Placement | str]) -> dict[int, Verdict]:
        """The pixels of what may pass, series by series; whatever is in review already is for a person to see."""
        series: dict[str, list[tuple[int, Instance]]] = {}
        found: dict[int, Verdict] = {}
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

    def _finish(self, number: int, done: Placement | str, verdict: Verdict | None) -> Result:
        if isinstance(done, str):
            return Result(number, "refused", (done,))
        reasons = tuple(reason.value for reason in done.reasons)
        if done.path is None:
            return Result(number, "refused", reasons)
        review = done.place == "review"
        result = Result(number, "review" if review else "written", reasons, done.name, pardoned=done.pardoned)
        if verdict is not None and (verdict.read or verdict.state is not State.CLEAN):
            regions = tuple((r.frame, r.left, r.top, r.right, r.bottom) for r in verdict.regions)
            result = replace(result, pixels=verdict.state.value, regions=regions)
            if verdict.state is State.REVIEW:
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


def _look(output: Path, names: Sequence[str]) -> list[str]:
    """Findings on one series of DST, from the headers we wrote."""
    found = integrity(read_slice(output / name) for name in names)
    return sorted({finding.value for findings in found.values() for finding in findings})


_NOT_READ = Verdict(State.REVIEW, PixelFinding.NOT_CHECKED)


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


def _start(settings: Settings) -> None:
    global _worker
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patients' data
    _worker = Worker(settings)


def _run(files: Sequence[File]) -> list[Result]:
    if _worker is None:
        raise RuntimeError("a worker that was never started")
    return _worker.batch(files)


class Processes:
    """Implements `node.usecases.deidentify_folder.Workers` with `jobs` processes."""

    def __init__(self, settings: Settings, jobs: int) -> None:
        self._settings = settings
        self._jobs = jobs
        self._pool = self._open(jobs)

    def __enter__(self) -> Processes:
        room = Rooms(self._settings.output).partial
        try:
            if room.exists():
                shutil.rmtree(room)
            room.mkdir(mode=0o700, parents=True)
            self._settings.output.mkdir(mode=0o750, exist_ok=True)
        except OSError as error:
            raise UsageFault(f"DST cannot be written: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(Rooms(self._settings.output).partial, ignore_errors=True)

    def _open(self, jobs: int) -> ProcessPoolExecutor:
        # spawned, not forked: nothing of this process's threads or memory is in them
        return ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=_start, initargs=(self._settings,)
        )

    def run(self, batches: Iterable[Sequence[File]]) -> Iterator[Sequence[Result]]:
        """The results of each batch, in the order of the batches; at most two batches a worker are under way."""
        waiting: deque[tuple[Sequence[File], Future[list[Result]]]] = deque()
        for batch in batches:
            waiting.append((batch, self._submit(batch)))
            if len(waiting) >= 2 * self._jobs:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def look(self, series: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
        """Findings on each series."""
        return self._pool.map(partial(_look, self._settings.output), series, chunksize=8)

    def _next(self, waiting: deque[tuple[Sequence[File], Future[list[Result]]]]) -> Sequence[Result]:
        batch, future = waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            results = [self._alone(file) for file in batch]
            self._pool = self._open(self._jobs)
            again = [(files, self._submit(files)) for files, _ in waiting]
            waiting.clear()
            waiting.extend(again)
            return results

    def _submit(self, batch: Sequence[File]) -> Future[list[Result]]:
        try:
            return self._pool.submit(_run, batch)
        except BrokenProcessPool as broken:
            failed: Future[list[Result]] = Future()
            failed.set_exception(broken)
            return failed

    def _alone(self, file: File) -> Result:
        """A file whose batch took its worker down, in a worker of its own."""
        with self._open(1) as pool:
            try:
                return pool.submit(_run, [file]).result()[0]
            except BrokenProcessPool:
                return Result(file.number, "refused", ("unreadable",))

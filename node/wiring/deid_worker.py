"""A worker process of `cloister deid run`: the engine, the pixel gate and gate 0 over a batch of files.

Every file is de-identified into a hidden folder beside DST, then each series' pixels are judged, then each file is
searched for what the files after it lost, then it goes to its place. The process's memory has a limit, so a hostile
file ends one worker and not the run.
"""

from __future__ import annotations

import errno
import filecmp
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import Table
from mediator.errors import NotNow, UsageFault
from node.deid.engine import Engine
from node.deid.pixels import Instance, PixelFinding, PixelGate, State, Verdict, needs_check
from node.deid.pixels.series import integrity, read_slice
from node.deid.profiles import load_profile, load_profile_file, standard
from node.intake import folder
from node.usecases.deidentify import Finished, Gate0, Placement, groups, suspects
from node.usecases.deidentify_folder import File, Result, Rooms

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


def pseudonyms(table: Table, key: bytes, project: str, site: str) -> Pseudonyms:
    """Those of stage 1 or of stage 2, as the profile says."""
    return Pseudonyms.local(key, site) if table.scope == "site" else Pseudonyms(key, project, site)


@dataclass(frozen=True)
class Trace:
    """What the files of one patient or study in a batch lost. Stays in memory: `lost` names the patient."""

    numbers: tuple[int, ...]
    keys: tuple[str, ...]
    lost: tuple[bytes, ...] = field(repr=False)

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

    def __init__(self, settings: Settings) -> None:
        table = table_of(settings.profile)
        keyed = pseudonyms(table, settings.key, settings.project, settings.site)
        self._settings = settings
        self._rooms = Rooms(settings.output)
        self._engine = Engine(table, standard())
        self._gate = Gate0(self._engine, keyed, self._rooms.partial, settings.site)
        self._pixels = PixelGate(
            every_frame=settings.ocr == "every-frame", hold_faces="clean-visual-features" in table.options
        )

    def batch(self, files: Sequence[File]) -> tuple[list[Result], list[Trace]]:
        """What became of each file, in order; and what they lost, by patient and study."""
        placed = {file.number: self._convert(file) for file in files}
        verdicts = self._examine(placed)
        traces = self._hold(files, placed)
        return [self._finish(number, done, verdicts.get(number)) for number, done in placed.items()], traces

    def search_again(self, files: Places, fresh: Sequence[bytes]) -> list[Result]:
        """Files in their places searched for `fresh`; those that hold it not by chance are taken away, and told."""
        searcher = self._engine.searcher()
        searcher.lost(fresh)
        found = []
        for file, path in files:
            if searcher.finds(path, path.name) and (reason := self._again(file, fresh)) is not None:
                path.unlink()
                found.append(Result(file.number, "refused", (reason,)))
        return found

    def _hold(self, files: Sequence[File], placed: dict[int, Placement | str]) -> list[Trace]:
        """Files that hold what only later ones of the batch lost are refused; what all of them lost comes back."""
        mine = [(file, done) for file in files if isinstance(done := placed[file.number], Placement) and done.keys]
        finished = [Finished(done.path, done.keys, done.lost, done.name) for _file, done in mine]
        for place, lost in suspects(finished, self._engine):
            file, done = mine[place]
            if done.path is not None and (reason := self._again(file, lost)) is not None:
                done.path.unlink()
                placed[file.number] = reason
        self._gate.forget()
        return [
            Trace.of([(mine[place][0].number, finished[place]) for place in group])
            for group in groups([one.keys for one in finished])
        ]

    def _again(self, file: File, lost: Sequence[bytes]) -> str | None:
        """Why a file must not stand, now that more is known to be lost."""
        try:
            handle = folder.open_inside(self._settings.source, file.path)
        except UsageFault:
            return "not_a_file"
        try:
            reason = self._gate.again(handle, lost)
        except Exception:  # noqa: BLE001 - the worker loop: a file nobody could make again is held back
            return "unreadable"
        finally:
            os.close(handle)
        return reason.value if reason is not None else None

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


def look(output: Path, names: Sequence[str]) -> list[str]:
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
Batch = tuple[list[Result], list[Trace]]
Places = Sequence[tuple[File, Path]]


def start(settings: Settings) -> None:
    global _worker
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patients' data
    _worker = Worker(settings)


def run(files: Sequence[File]) -> tuple[list[Result], list[Trace]]:
    if _worker is None:
        raise RuntimeError("a worker that was never started")
    return _worker.batch(files)


def run_again(files: Places, fresh: Sequence[bytes]) -> list[Result]:
    if _worker is None:
        raise RuntimeError("a worker that was never started")
    return _worker.search_again(files, fresh)

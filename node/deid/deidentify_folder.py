"""A folder through gate 0 without a node: SRC is read, DST and DST.review are written, every file is accounted for.

1. Files are numbered in the order of their paths: `src#0042`. That number, and nothing of the path, is ever told.
2. Batches of one folder's files go to workers (`node.deid.pipeline`). The first file of each is asked whose names and
   numbers it holds, for the other batches of its patient and study.
3. What passes stands in DST, what a person must look at in DST.review with its reason, both de-identified.
4. A file already there is left alone when it is the same, and never written over when it is not: a run broken off or
   given twice ends the same.
5. Where the files of a patient or study came in several batches, each is searched again for what those of the other
   batches lost; one that holds something of it is taken out of DST again, and its line says so.
6. A study whose files are of two patients goes to review whole (`patient_split`).
7. `DST.report.jsonl` has a line for each file, in order; `DST.summary.json` the counts, and series that are not whole
   (slices missing or doubled, instances that do not belong together), by the names they have in DST.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from durable.files import creating, replacing
from mediator.deid.screening import Exclusion
from mediator.errors import UsageFault
from node.deid.pipeline import Batch, File, Placed, Result, Search, Trace, Workers, known_of, refused, to_search
from node.deid.sinks import FolderSink, move
from node.host.disk_errors import is_full

# Enough to keep a worker busy between two answers, few enough to lose little when it dies.
BATCH = 256


@dataclass
class Tally:
    """The counts of one run, as `--json` shows them."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: {"review": Counter(), "refused": Counter()})
    pixels: Counter[str] = field(default_factory=Counter)
    pardoned: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result, times: int = 1) -> None:
        """Count a result; `times` -1 takes it back."""
        self.files += times
        self.outcomes[result.outcome] += times
        if result.reasons:
            self.reasons[result.outcome][result.reasons[0]] += times
        if result.pixels:
            self.pixels[result.pixels] += times
        self.pardoned += times * result.pardoned
        for keyword, count in result.missed.items():
            self.missed[keyword] += times * count
        for note in result.notes if result.outcome != "refused" else ():
            self.notes[note] += times

    def plain(self) -> dict[str, Any]:
        """Files in, written, to review and refused, each file under its first reason; and by keyword how many elements
        the profile means to keep and could not."""
        return {
            "files": self.files,
            "written": self.outcomes["written"],
            "review": self.outcomes["review"],
            "refused": self.outcomes["refused"],
            "review_reasons": dict(sorted((+self.reasons["review"]).items())),
            "refused_reasons": dict(sorted((+self.reasons["refused"]).items())),
            "pixels": dict(sorted((+self.pixels).items())),
            "pardoned_matches": self.pardoned,
            "missed": dict(sorted((+self.missed).items())),
            "notes": dict(sorted((+self.notes).items())),
        }


def check_rooms(source: Path, rooms: FolderSink) -> None:
    """Neither folder inside the other, and DST a real folder or none, in a place that can be written to. Before a file
    is read. Raises `UsageFault` without naming a path."""
    try:
        _check_rooms(source, rooms)
    except PermissionError:
        raise UsageFault("SRC or DST lies in a folder that this user may not enter") from None


def _check_rooms(source: Path, rooms: FolderSink) -> None:
    if not source.is_dir():
        raise UsageFault("SRC is no folder that can be read")
    ours, theirs = rooms.output.absolute(), source.resolve()
    target = ours.parent.resolve() / ours.name
    if target == theirs or target.is_relative_to(theirs) or theirs.is_relative_to(target):
        raise UsageFault("SRC and DST must not lie inside each other", hint="write to a folder of its own")
    for room in (rooms.output, rooms.review, rooms.partial):
        if room.is_symlink() or (room.exists() and not room.is_dir()):
            raise UsageFault("DST, DST.review and .DST.partial are folders, not links or files")
        if room.exists() and not os.access(room, os.W_OK | os.X_OK):
            raise UsageFault("DST cannot be written, or DST.review: they are closed to this user")
    for written in (rooms.report, rooms.summary):
        if written.is_symlink() or (written.exists() and not written.is_file()):
            raise UsageFault("the reports beside DST are files, not links or folders", hint="move them out of the way")
    above = next(folder for folder in ours.parents if folder.exists())  # what is missing below it is made
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageFault("DST cannot be written: the folder it goes into is no folder, or closed to this user")


def check_same_pseudonyms(rooms: FolderSink, about: Mapping[str, Any]) -> None:
    """What DST holds of an earlier run was made with the same key, project and site: other pseudonyms beside it would
    be other patients, and nothing told them apart. Raises `UsageFault`."""
    if not any(room.is_dir() and any(room.iterdir()) for room in (rooms.output, rooms.review)):
        return
    try:
        told = json.loads(rooms.summary.read_bytes())
    except (OSError, ValueError):  # no run came to its end here
        return
    if not isinstance(told, dict):
        return
    others = [what for what in ("key", "project", "site") if what in told and told[what] != about[what]]
    if others:
        raise UsageFault(
            f"DST holds what was made with another {' and another '.join(others)}",
            hint="DST.summary.json says which; give a DST of its own",
        )


def batches(files: Sequence[File]) -> Iterator[list[File]]:
    """Consecutive files of one folder, at most `BATCH`: most often one series, whose pixels are judged together."""
    batch: list[File] = []
    for file in files:
        if batch and (len(batch) == BATCH or os.path.dirname(batch[-1].path) != os.path.dirname(file.path)):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def deidentify_folder(
    files: Sequence[File], sink: FolderSink, workers: Workers, about: Mapping[str, Any]
) -> Iterator[Result | dict[str, Any]]:
    """A `Result` for each file in order, then the summary (`about` and the counts), which is also written."""
    tally = Tally()
    series: dict[str, list[str]] = {}
    patients: dict[str, dict[str, list[int]]] = {}
    traces: list[Trace] = []
    with _new(sink.report) as report:
        for done in workers.run(_surveyed(list(batches(files)), sink, workers)):
            traces += done.traces
            for result in done.results:
                if result.outcome == "written":
                    series.setdefault(os.path.dirname(result.name), []).append(result.name)
                if result.outcome != "refused" and (one := result.identity).patient_alone:
                    patients.setdefault(one.study_uid, {}).setdefault(one.patient, []).append(result.number)
                yield _tell(result, tally, report)
    for found in workers.search_again(_searches(files, traces, sink)):
        for result in found:
            _withdraw(result, sink, tally, series)
    split = [several for several in patients.values() if len(several) > 1]
    _hold_split(
        [number for several in split for numbers in several.values() for number in numbers], sink, tally, series
    )
    series = {name: members for name, members in series.items() if members}
    places = [[sink.place(name, review=False) for name in members] for members in series.values()]
    summary = {
        **about,
        **tally.plain(),
        "patient_split": len(split),
        "series": len(series),
        "series_findings": _findings(series, places, workers),
    }
    with _new(sink.summary) as told:
        json.dump(summary, told, indent=2)
        told.write("\n")
    yield summary


def _surveyed(several: Sequence[Sequence[File]], sink: FolderSink, workers: Workers) -> Iterator[Batch]:
    """Each batch with what the first files of its patient's and study's other batches say whose names there are. (2)"""
    if len(several) < 2:
        yield from (Batch(tuple(files), sink) for files in several)
        return
    surveys = list(workers.survey([files[0] for files in several]))
    issuers = tuple({issued for survey in surveys for issued in survey.issued})
    for files, survey, known in zip(several, surveys, known_of(surveys), strict=True):
        first = files[0]
        if survey.exclusion == Exclusion.OUR_DEFECT:  # it waits for us, and is not tried with half of what was known
            first = replace(first, refused=survey.exclusion)
        yield Batch((first, *files[1:]), sink, known, issuers)


def _searches(files: Sequence[File], traces: Sequence[Trace], sink: FolderSink) -> Iterator[Search]:
    """Files in their places, and what other batches lost that their own did not. (5)"""
    told: dict[int, Result] = {}
    for trace, fresh in to_search(traces):
        told = told or read_report(sink.report)
        standing = [told[number] for number in trace.numbers if told[number].outcome != "refused"]
        paths = [(one, sink.place(one.name, review=one.outcome == "review")) for one in standing]
        placed = [Placed(files[one.number - 1], path, path.name) for one, path in paths]
        if placed:
            yield Search(tuple(placed), fresh)


def _findings(
    series: Mapping[str, Sequence[str]], places: Sequence[Sequence[Path]], workers: Workers
) -> dict[str, list[str]]:
    """What is wrong with each series that is not whole."""
    found = {name: {*findings} for name, findings in zip(series, workers.look(places), strict=True)}
    told_apart = Counter(os.path.basename(name) for name in series)
    for name, findings in found.items():
        if told_apart[os.path.basename(name)] > 1:  # one series of two patients or studies: each in its own folder
            findings.add("mixed_series")
    return {name: sorted(findings) for name, findings in sorted(found.items()) if findings}


def write_source_index(path: Path, files: Iterable[File]) -> None:
    """number → path, for the person at the keyboard alone: a new file, 0600. Raises `UsageFault`."""
    lines = (json.dumps({"source": entry.label, "path": entry.path}, ensure_ascii=True) + "\n" for entry in files)
    try:
        with creating(path) as file:
            file.writelines(line.encode("ascii") for line in lines)
    except OSError as error:
        if is_full(error):
            raise
        raise UsageFault(f"the source index cannot be written: {error.strerror}", hint="a new file") from None


def _tell(result: Result, tally: Tally, report: TextIO) -> Result:
    tally.add(result)
    report.write(json.dumps(result.line()) + "\n")
    return result


def read_report(path: Path) -> dict[int, Result]:
    """The results of a report, by their numbers."""
    with path.open(encoding="ascii") as report:
        return {result.number: result for result in map(_result, report)}


def _result(line: str) -> Result:
    told = json.loads(line)
    number, reasons = int(told.pop("source").removeprefix("src#")), tuple(told.pop("reasons", ()))
    regions, notes = tuple(map(tuple, told.pop("regions", ()))), tuple(told.pop("notes", ()))
    return Result(number, reasons=reasons, regions=regions, notes=notes, **told)


def _withdraw(result: Result, sink: FolderSink, tally: Tally, series: Mapping[str, list[str]]) -> None:
    """A file refused after all: it does not stand, and its line, the counts and its series are without it."""
    results = read_report(sink.report)
    before, results[result.number] = results[result.number], result
    sink.place(before.name, review=before.outcome == "review").unlink(missing_ok=True)
    tally.add(before, -1)
    tally.add(result)
    if before.outcome == "written":
        series[os.path.dirname(before.name)].remove(before.name)
    _write_report(results, sink)


def _hold_split(numbers: Sequence[int], sink: FolderSink, tally: Tally, series: Mapping[str, list[str]]) -> None:
    """Files of studies that are of two patients are for a person: only the hospital knows whether it is one."""
    if not numbers:
        return
    results = read_report(sink.report)
    for before in (results[number] for number in numbers):
        if before.outcome == "refused":
            continue
        result = replace(before, outcome="review", reasons=(*before.reasons, Exclusion.PATIENT_SPLIT.value))
        there, target = sink.place(before.name, review=before.outcome == "review"), sink.place(before.name, review=True)
        if before.outcome == "written":
            series[os.path.dirname(before.name)].remove(before.name)
            if not move(there, target):
                result = refused(before.number, Exclusion.OUTPUT_EXISTS)
        results[before.number] = result
        tally.add(before, -1)
        tally.add(result)
    _write_report(results, sink)


def _write_report(results: Mapping[int, Result], sink: FolderSink) -> None:
    with replacing(sink.report, 0o640, masked=True) as file:
        file.writelines((json.dumps(one.line()) + "\n").encode("ascii") for one in results.values())


def _new(path: Path) -> TextIO:
    """A report of this run in place of the last one's, never through a link: it grows as the run goes on, so that one
    that was killed says how far it came."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(path, flags, 0o640), "w", encoding="ascii")
    except OSError as error:
        raise UsageFault(f"the report beside DST cannot be written: {error.strerror}") from None

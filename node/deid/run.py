"""`cloister deid run`: a folder walked, worker processes, and in each the engine, the pixel gate and gate 0.

The first file of each batch is asked whose names and numbers it holds, for the other batches of its patient and study.
Batches go to workers (`node.deid.worker`); what a batch lost is kept in memory, and at the end searched for in
the other batches of the same patient and study. A batch whose worker died is tried again file by file.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from mediator.deid.identifiers import Lost
from mediator.deid.pseudonyms import NORMALISATION
from mediator.deid.rules import ENGINE_VERSION, ProfileTable
from mediator.errors import UsageFault
from mediator.traceability import PSEUDONYMOUS, key_id
from node.deid import source_folder as folder
from node.deid.copiers import THREADS
from node.deid.deidentify import groups
from node.deid.deidentify_folder import File, OutputFolders, Result
from node.deid.pixels import PixelGate
from node.deid.worker import Batch, Counts, Known, Places, Settings, Trace, look, run, run_again, start, survey


def about(settings: Settings, table: ProfileTable) -> dict[str, Any]:
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
    """Every file below SRC in the order of its path, numbered from 1. Raises `UsageFault` when there is none, or when
    none of them can be opened."""
    found = []
    for number, entry in enumerate(folder.walk(source), start=1):
        if entry.handle is not None:
            os.close(entry.handle)
        found.append(File(number, entry.path, entry.refused.value if entry.refused else None))
    if not found:
        raise UsageFault("SRC holds no file")
    if all(file.refused for file in found):
        raise UsageFault("no file in SRC can be read by this user", hint="links are not followed")
    return found


Task = tuple[Sequence[File], Known]
"""A batch, and what is known of its patients beforehand."""


class Processes:
    """Implements `node.deid.deidentify_folder.Workers` with `jobs` processes."""

    def __init__(self, settings: Settings, jobs: int) -> None:
        spare = len(os.sched_getaffinity(0)) >= 2 * jobs
        self._settings = replace(settings, copiers=THREADS if spare else 0)
        self._jobs = jobs
        self._context = multiprocessing.get_context("spawn")  # nothing of this process's threads or memory is in them
        self._counts: Counts = self._context.Array("Q", 2)
        self._pool = self._open(jobs)
        self._traces: list[Trace] = []

    def __enter__(self) -> Processes:
        room = OutputFolders(self._settings.output).partial
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
        shutil.rmtree(OutputFolders(self._settings.output).partial, ignore_errors=True)

    def _open(self, jobs: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(jobs, self._context, initializer=start, initargs=(self._settings, self._counts))

    @property
    def under_way(self) -> tuple[int, int]:
        """Files converted, and pictures read, so far: more than is told, for a batch is told when it is finished."""
        return self._counts[0], self._counts[1]

    def run(self, batches: Iterable[Sequence[File]]) -> Iterator[Sequence[Result]]:
        """The results of each batch, in the order of the batches; at most two batches a worker are under way."""
        waiting: deque[tuple[Task, Future[Batch]]] = deque()
        for task in self._surveyed(list(batches)):
            waiting.append((task, self._submit(task)))
            if len(waiting) >= 2 * self._jobs:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _surveyed(self, batches: Sequence[Sequence[File]]) -> Iterator[Task]:
        """Each batch with what the first files of its patient's and study's other batches say whose names there are.

        A report in a folder of its own names who wrote it; its images may have the word in a description.
        """
        try:
            told = (
                list(self._pool.map(survey, [batch[0] for batch in batches], chunksize=8)) if len(batches) > 1 else []
            )
        except BrokenProcessPool:  # the batch of whichever file it was will tell
            self._pool, told = self._open(self._jobs), []
        known: list[Known] = [{} for _ in batches]
        for group in groups([keys for keys, _named in told]):
            named = list(dict.fromkeys(one for place in group for one in told[place][1]))
            everybody = {told[place][0][0]: named for place in group}
            for place in group:
                known[place] = everybody
        yield from zip(batches, known, strict=True)

    def look(self, series: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
        """Findings on each series."""
        several = list(series)
        try:
            return self._pool.map(look, several, chunksize=8)
        except BrokenProcessPool:  # by the last search
            self._pool = self._open(self._jobs)
            return self._pool.map(look, several, chunksize=8)

    def search_again(self, files: Sequence[File], names: Callable[[], Mapping[int, Result]]) -> Iterator[Result]:
        """What is refused after all: files that hold, not by chance, what other batches of their patient lost."""
        waiting: deque[tuple[Places, Sequence[Lost], Future[list[Result]]]] = deque()
        for places, fresh in self._to_search(files, names):
            waiting.append((places, fresh, self._submit_again(places, fresh)))
            if len(waiting) >= 2 * self._jobs:
                yield from self._found(*waiting.popleft())
        while waiting:
            yield from self._found(*waiting.popleft())

    def _to_search(
        self, files: Sequence[File], names: Callable[[], Mapping[int, Result]]
    ) -> Iterator[tuple[Places, Sequence[Lost]]]:
        """Files in their places, and what other batches lost that their own did not."""
        several = [group for group in groups([trace.keys for trace in self._traces]) if len(group) > 1]
        told = names() if several else {}
        rooms = OutputFolders(self._settings.output)
        room = {"written": rooms.output, "review": rooms.review}
        for traces in ([self._traces[place] for place in group] for group in several):
            everything = {value for trace in traces for value in trace.lost}
            for trace in traces:
                standing = [told[number] for number in trace.numbers if told[number].outcome in room]
                places = [(files[one.number - 1], room[one.outcome] / one.name) for one in standing]
                if places and (fresh := everything.difference(trace.lost)):
                    yield places, list(fresh)

    def _submit_again(self, places: Places, fresh: Sequence[Lost]) -> Future[list[Result]]:
        try:
            return self._pool.submit(run_again, places, fresh)
        except BrokenProcessPool:
            self._pool = self._open(self._jobs)
            return self._pool.submit(run_again, places, fresh)

    def _found(self, places: Places, fresh: Sequence[Lost], future: Future[list[Result]]) -> list[Result]:
        try:
            return future.result()
        except BrokenProcessPool:
            return [result for place in places for result in self._search_alone(place, fresh)]

    def _search_alone(self, place: tuple[File, Path], fresh: Sequence[Lost]) -> list[Result]:
        """A file whose search took its worker down, in a worker of its own; what does so again is taken away."""
        with self._open(1) as pool:
            try:
                return pool.submit(run_again, [place], fresh).result()
            except BrokenProcessPool:
                place[1].unlink(missing_ok=True)
                return [Result(place[0].number, "refused", ("unreadable",))]

    def _next(self, waiting: deque[tuple[Task, Future[Batch]]]) -> Sequence[Result]:
        (batch, known), future = waiting.popleft()
        try:
            return self._kept(future.result())
        except BrokenProcessPool:
            results = [self._alone(file, known) for file in batch]
            self._pool = self._open(self._jobs)
            again = [(task, self._submit(task)) for task, _ in waiting]
            waiting.clear()
            waiting.extend(again)
            return results

    def _kept(self, batch: Batch) -> list[Result]:
        self._traces += batch[1]
        return batch[0]

    def _submit(self, task: Task) -> Future[Batch]:
        try:
            return self._pool.submit(run, *task)
        except BrokenProcessPool as broken:
            failed: Future[Batch] = Future()
            failed.set_exception(broken)
            return failed

    def _alone(self, file: File, known: Known) -> Result:
        """A file whose batch took its worker down, in a worker of its own."""
        with self._open(1) as pool:
            try:
                return self._kept(pool.submit(run, [file], known).result())[0]
            except BrokenProcessPool:
                return Result(file.number, "refused", ("unreadable",))

"""Worker processes: implements `node.deid.pipeline.Workers`.

1. Spawned, never forked: nothing of this process's threads, sockets or memory is in them. The first one starts while
   its caller still gathers work, the others with it; all are kept, for starting one takes longer than a study.
2. Each has a limit of memory and leaves no core file; it ends when its parent does, however that ended.
3. A batch whose worker died, or had no memory left, is tried again file by file, each in a worker that may die of it
   alone: that file is `unreadable` (`too_large`).
4. A full disk ends the run with `NoRoom`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice
from multiprocessing import connection
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from mediator.deid.screening import Exclusion
from mediator.errors import CloisterError
from node.deid.copiers import SWITCH_S, THREADS
from node.deid.limits import limit_memory
from node.deid.pipeline import Batch, Done, File, Result, Search, Survey, refused
from node.deid.worker_settings import Settings
from node.host import logs

if TYPE_CHECKING:
    from node.deid.worker import Worker

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Counts: TypeAlias = "SynchronizedArray[int]"
"""Shared by all workers: files converted, and pictures read, so far."""
Files = tuple[File, ...]
# A survey takes a millisecond: few enough that a worker's death costs little, many enough that asking costs little.
_SURVEYED_TOGETHER = 8
_LOOKED_AT_TOGETHER = 8


class WorkerProcesses:
    """`jobs` processes, until the end of the `with`."""

    def __init__(self, settings: Settings, jobs: int) -> None:
        each = max(1, len(os.sched_getaffinity(0)) // jobs)
        self._settings = replace(settings, copiers=THREADS if each > 1 else 0, readers=min(settings.readers, each))
        self._jobs = jobs
        self._context = multiprocessing.get_context("spawn")  # (1)
        self._counts: Counts = self._context.Array("Q", 2)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> WorkerProcesses:
        self._submit(begin, None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def under_way(self) -> tuple[int, int]:
        return self._counts[0], self._counts[1]

    def survey(self, files: Iterable[File]) -> Iterator[Survey]:
        for several in self._in_order(_several(files, _SURVEYED_TOGETHER), survey, self._survey_alone):
            yield from several

    def run(self, batches: Iterable[Batch]) -> Iterator[Done]:
        return self._in_order(batches, run, self._run_alone)

    def search_again(self, searches: Iterable[Search]) -> Iterator[tuple[Result, ...]]:
        return self._in_order(searches, search, self._search_alone)

    def look(self, series: Iterable[Sequence[Path]]) -> Iterator[tuple[str, ...]]:
        for several in self._in_order(_several(series, _LOOKED_AT_TOGETHER), look, self._look_alone):
            yield from several

    def _in_order(self, tasks: Iterable[T], work: Callable[[T], R], alone: Callable[[T], R]) -> Iterator[R]:
        """Results in the order of the tasks, at most two a worker under way; `alone` does what took a worker down."""
        waiting: deque[tuple[T, Future[R]]] = deque()
        for task in tasks:
            waiting.append((task, self._submit(work, task)))
            if len(waiting) >= 2 * self._jobs:
                yield self._next(waiting, work, alone)
        while waiting:
            yield self._next(waiting, work, alone)

    def _next(self, waiting: deque[tuple[T, Future[R]]], work: Callable[[T], R], alone: Callable[[T], R]) -> R:
        task, future = waiting.popleft()
        if future.cancelled():  # with the pool that another kind of task took down
            future = self._submit(work, task)
        try:
            return future.result()
        except MemoryError:
            return alone(task)  # (3)
        except BrokenProcessPool:
            self._give_up()
            result = alone(task)
            again = [(one, self._submit(work, one) if _is_lost(begun) else begun) for one, begun in waiting]
            waiting.clear()
            waiting.extend(again)
            return result

    def _submit(self, work: Callable[[T], R], task: T) -> Future[R]:
        self._pool = self._pool or self._open(self._jobs)
        try:
            return self._pool.submit(work, task)
        except BrokenProcessPool as broken:
            failed: Future[R] = Future()
            failed.set_exception(broken)
            return failed

    def _give_up(self) -> None:
        """The pool is broken: none of its processes works on anything any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _open(self, jobs: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(jobs, self._context, initializer=start, initargs=(self._settings, self._counts))

    def _one_by_one(
        self, tasks: Iterable[T], work: Callable[[T], R], instead: Callable[[T, Exclusion], R]
    ) -> Iterator[R]:
        """Each task in a worker that nobody else is in; `instead` of what takes it down, too."""
        pool: ProcessPoolExecutor | None = None
        try:
            for task in tasks:
                pool = pool or self._open(1)
                try:
                    yield pool.submit(work, task).result()
                except MemoryError:
                    yield instead(task, Exclusion.TOO_LARGE)
                except BrokenProcessPool:
                    pool.shutdown(wait=True)
                    pool = None
                    yield instead(task, Exclusion.UNREADABLE)
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def _survey_alone(self, files: Files) -> tuple[Survey, ...]:
        def instead(one: Files, reason: Exclusion) -> tuple[Survey, ...]:
            return (Survey(one[0].number, exclusion=reason.value),)

        told = self._one_by_one([(file,) for file in files], survey, instead)
        return tuple(one for several in told for one in several)

    def _run_alone(self, batch: Batch) -> Done:
        def instead(one: Batch, reason: Exclusion) -> Done:
            return Done((refused(one.files[0].number, reason),))

        done = list(self._one_by_one([replace(batch, files=(file,)) for file in batch.files], run, instead))
        results = tuple(result for one in done for result in one.results)
        return Done(results, tuple(trace for one in done for trace in one.traces))

    def _search_alone(self, several: Search) -> tuple[Result, ...]:
        def instead(one: Search, reason: Exclusion) -> tuple[Result, ...]:
            one.files[0].path.unlink(missing_ok=True)
            return (refused(one.files[0].file.number, reason),)

        found = self._one_by_one([replace(several, files=(placed,)) for placed in several.files], search, instead)
        return tuple(result for one in found for result in one)

    def _look_alone(self, several: tuple[Sequence[Path], ...]) -> tuple[tuple[str, ...], ...]:
        def instead(_one: tuple[Sequence[Path], ...], _reason: Exclusion) -> tuple[tuple[str, ...], ...]:
            return (("unreadable_header",),)

        found = self._one_by_one([(one,) for one in several], look, instead)
        return tuple(findings for one in found for findings in one)


def _several(things: Iterable[T], count: int) -> Iterator[tuple[T, ...]]:
    """`count` of them at a time."""
    rest = iter(things)
    while some := tuple(islice(rest, count)):
        yield some


def _is_lost(begun: Future[R]) -> bool:
    """Whether a task has no result, and will have none."""
    return not begun.done() or begun.cancelled() or begun.exception() is not None


_worker: Worker | Exception | None = None


def start(settings: Settings, counts: Counts | None = None) -> None:
    """In a new worker process: from here on it gets a little more memory, whatever a file says, or dies alone. (2)"""
    global _worker
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patients' data
    logs.set_up(settings.log.process, level=settings.log.level, form=settings.log.form)
    Thread(target=_end_with_parent, daemon=True).start()
    if settings.copiers:
        sys.setswitchinterval(SWITCH_S)

    from node.deid.worker import Worker  # here, so that whoever starts workers loads neither engine nor decoders

    for others in ("", "pydicom"):  # what they only warn of is told as what we find in the file
        logging.getLogger(others).setLevel(logging.ERROR)

    def count(what: int) -> None:
        if counts is not None:
            with counts.get_lock():
                counts[what] += 1

    try:
        _worker = Worker(settings, count)
    except Exception as error:
        if not isinstance(error, CloisterError):
            log.critical("a worker cannot begin", exc_info=error)
        _worker = error
    limit_memory()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, or go on writing where another run begins."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _started() -> Worker:
    if _worker is None:
        raise RuntimeError("a worker that was never started")
    if isinstance(_worker, Exception):
        raise _worker
    return _worker


def begin(_nothing: None) -> None:
    """Makes a pool start its first process."""


def survey(files: Files) -> tuple[Survey, ...]:
    return tuple(map(_started().survey, files))


def run(batch: Batch) -> Done:
    return _started().run(batch)


def search(several: Search) -> tuple[Result, ...]:
    return _started().search(several)


def look(several: tuple[Sequence[Path], ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(_started().look, several))

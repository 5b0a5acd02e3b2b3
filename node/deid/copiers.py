"""Threads that copy pixel values while the next file's header is taken apart.

Copying and hashing are the kernel's and OpenSSL's work, done without the interpreter's lock: on two cores the header
of one file and the pixels of another cost no more time than the longer of the two. Nothing here is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

# Measured on two free processors, ms a file: none 0.53, one 0.32, two 0.42 (they wait for the interpreter in turn).
THREADS = 1
# For `sys.setswitchinterval`: a thread whose pixels are copied waits for the interpreter this long and not 5 ms.
SWITCH_S = 0.0002
# Files under way: enough that no thread waits for the next, few enough that open files and headers stay few.
UNDER_WAY = 6


class CopyJob(Generic[T]):
    """Work that some thread does, or whoever asks for its result first."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self._running: Lock | None = None

    def hand_over(self) -> CopyJob[T]:
        """Before a thread gets it: `result` waits for the thread from now on."""
        self._running = Lock()
        self._running.acquire()
        return self

    def run(self) -> None:
        """In the thread. What is raised is raised again by `result`."""
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - belongs to whoever asks for the result
            self._error = error
        finally:
            if self._running is not None:
                self._running.release()

    def result(self) -> T:
        """Once only. Raises what the work raised."""
        if self._running is None:
            return self._work()
        self._running.acquire()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class Copiers:
    """A few threads, from the first job until the end of the `with`."""

    def __init__(self, threads: int = THREADS) -> None:
        self._queue: SimpleQueue[CopyJob[object] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._count = threads

    def __enter__(self) -> Copiers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def submit(self, job: CopyJob[T]) -> None:
        """Have it done by a thread, in turn."""
        if not self._threads:
            self._threads = [Thread(target=self._loop, daemon=True) for _ in range(self._count)]
            for thread in self._threads:
                thread.start()
        self._queue.put(job.hand_over())  # type: ignore[arg-type]

    def _loop(self) -> None:
        while (job := self._queue.get()) is not None:
            job.run()
            del job  # its file must not outlive it

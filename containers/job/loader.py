"""Batches of studies for training, read by several processes while the model computes.

    data = Dataset()
    labels = data.column("lesion")
    labelled = [study for study in data.studies if study.id in labels]
    for batch in batches(data, labelled, 8, shape=(32, 256, 256), shuffle=epoch, workers=default_workers()):
        batch.volumes                  (studies, slices, rows, columns) float32, in the modality's units (CT: HU)
        batch.studies                  the studies in that order

Workers hand volumes over through files in `/dev/shm`, which a sandbox sizes at a quarter of the job's memory; at most
one volume a worker and one more is there at a time. Without workers nothing is started, and the order and the bytes
are the same.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .dataset import Dataset, Study

SHARED = Path("/dev/shm")  # noqa: S108  the kernel's, inside the container

Volume = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Some studies and their images: `volumes` is (studies, slices, rows, columns) float32 in the modality's units."""

    studies: tuple[Study, ...]
    volumes: npt.NDArray[np.float32] = field(repr=False)

    def __len__(self) -> int:
        return len(self.studies)


def batches(
    data: Dataset,
    studies: Sequence[Study],
    size: int,
    *,
    shape: tuple[int, int, int] | None = None,
    shuffle: int | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """Every study once, `size` at a time (the last batch may be smaller).

    `shape` is (slices, rows, columns): each volume is cropped or padded to it about its centre (`fit`); without it a
    batch takes its largest volume's. `shuffle` is a seed for the order: another for every epoch. `workers` processes
    read ahead; `default_workers()` is what the sandbox was given.
    """
    order = list(studies)
    if shuffle is not None:
        random.Random(shuffle).shuffle(order)
    volumes = _read_ahead(data, order, workers) if workers > 0 else map(data.volume, order)
    for start in range(0, len(order), size):
        chosen = tuple(order[start : start + size])
        found = [next(volumes) for _ in chosen]
        largest = [max(sides) for sides in zip(*(volume.shape for volume in found), strict=True)]
        target = shape or (largest[0], largest[1], largest[2])
        yield Batch(chosen, np.stack([fit(volume, target) for volume in found]))


def fit(volume: Volume, shape: tuple[int, int, int]) -> Volume:
    """The middle of a (slices, rows, columns) volume, cut to `shape` or padded with its least value (CT: air)."""
    fitted = np.full(shape, volume.min(), np.float32)
    there, here = [], []
    for have, want in zip(volume.shape, shape, strict=True):
        length = min(have, want)
        there.append(slice((want - length) // 2, (want - length) // 2 + length))
        here.append(slice((have - length) // 2, (have - length) // 2 + length))
    fitted[tuple(there)] = volume[tuple(here)]
    return fitted


def default_workers() -> int:
    """As many readers as processors that the sandbox gives beside the one that trains; at least 1."""
    return max(1, int(os.environ.get("CLOISTER_CPUS", "1")) - 1)


def _read_ahead(data: Dataset, order: Sequence[Study], workers: int) -> Iterator[Volume]:
    """The volumes in order; while one is used, the next are being read."""
    shared = Path(tempfile.mkdtemp(dir=SHARED if SHARED.is_dir() else None))
    pool, waiting, coming = ProcessPoolExecutor(workers), list[Future[Any]](), iter(order)
    try:
        while True:
            while len(waiting) <= workers and (study := next(coming, None)) is not None:
                waiting.append(pool.submit(_hand_over, data, study, shared))
            if not waiting:
                return
            path = waiting.pop(0).result()
            volume: Volume = np.load(path)
            path.unlink()
            yield volume
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(shared, ignore_errors=True)


def _hand_over(data: Dataset, study: Study, shared: Path) -> Path:
    """In a worker: read one study and leave it in shared memory."""
    descriptor, name = tempfile.mkstemp(suffix=".npy", dir=shared)
    with os.fdopen(descriptor, "wb") as file:
        np.save(file, data.volume(study))
    return Path(name)

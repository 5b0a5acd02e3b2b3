"""Batches of studies, with and without processes that read ahead."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from containers.job.dataset import Dataset
from containers.job.loader import SHARED, batches, default_workers, fit
from tests.containers.job.test_dataset import publish

STUDIES = tuple(f"s-{number:04d}" for number in range(7))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return Dataset(publish(tmp_path, studies=STUDIES))


def test_every_study_comes_once_in_batches(data: Dataset) -> None:
    found = list(batches(data, data.studies, 3))
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert [study.id for batch in found for study in batch.studies] == list(STUDIES)
    assert found[0].volumes.shape == (3, 3, 8, 8) and found[0].volumes.dtype == np.float32
    assert (found[0].volumes[1] == data.volume(data.studies[1])).all()


def test_workers_give_the_same_bytes_in_the_same_order_and_leave_nothing_behind(data: Dataset) -> None:
    before = sorted(os.listdir(SHARED))
    alone = list(batches(data, data.studies, 2, shuffle=5))
    together = list(batches(data, data.studies, 2, shuffle=5, workers=2))
    assert [batch.studies for batch in alone] == [batch.studies for batch in together]
    assert all((one.volumes == other.volumes).all() for one, other in zip(alone, together, strict=True))
    assert [name for name in sorted(os.listdir(SHARED)) if name.startswith("tmp") and name not in before] == []


def test_a_loop_that_is_left_early_leaves_nothing_behind(data: Dataset) -> None:
    before = set(os.listdir(SHARED))
    loop = batches(data, data.studies, 1, workers=2)
    next(loop)
    loop.close()
    assert {name for name in set(os.listdir(SHARED)) - before if name.startswith("tmp")} == set()


def test_a_seed_is_an_order(data: Dataset) -> None:
    def order(seed: int | None) -> list[str]:
        return [study.id for batch in batches(data, data.studies, 2, shuffle=seed) for study in batch.studies]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == order(None) == list(STUDIES)


def test_a_volume_is_cut_or_padded_about_its_middle() -> None:
    volume = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4) + 7
    assert (fit(volume, (1, 2, 2)) == volume[1:2, 1:3, 1:3]).all()
    wide = fit(volume, (5, 6, 4))
    assert (wide[1:4, 1:5] == volume).all() and wide[0, 0, 0] == volume.min() == 7
    assert (fit(volume, (3, 4, 4)) == volume).all()


def test_a_worker_that_cannot_read_says_so(data: Dataset, tmp_path: Path) -> None:
    for file in (tmp_path / "studies" / STUDIES[3]).iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no such series"):
        list(batches(data, data.studies, 2, workers=2))


def test_one_processor_stays_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, readers in (("1", 1), ("2", 1), ("8", 7)):
        monkeypatch.setenv("CLOISTER_CPUS", given)
        assert default_workers() == readers

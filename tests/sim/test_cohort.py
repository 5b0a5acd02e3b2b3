import csv
import hashlib
import time

import numpy as np
import pydicom
import pytest

from tests.sim.cohort import SCANNERS, SIZE, SLICES, make_scan, write_cohort
from tests.sim.planting import plant
from tests.sim.pydicom_files import copy_pydicom_files
from tests.sim.search import search


def auc(scores, labels) -> float:
    """Area under the ROC curve, whichever way it points."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    rank = scores.argsort().argsort() + 1
    positives = labels.sum()
    area = (rank[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))
    return float(max(area, 1 - area))


@pytest.mark.parametrize("scanner", SCANNERS)
def test_mean_and_variance_of_the_images_do_not_tell_the_label(scanner):
    random = np.random.default_rng(7)
    scans = [make_scan(random, number % 2, scanner) for number in range(1200)]
    labels = [scan.label for scan in scans]
    for statistic in (np.mean, np.var):
        assert auc([statistic(scan.pixels) for scan in scans], labels) < 0.60
        assert auc([max(statistic(image) for image in scan.pixels) for scan in scans], labels) < 0.60


def test_a_detector_of_local_bumps_does_tell_it():
    random = np.random.default_rng(8)
    scans = [make_scan(random, number % 2, SCANNERS[0]) for number in range(300)]
    frequency = np.fft.fftfreq(SIZE)
    blur = np.exp(-2 * (np.pi * 3) ** 2 * (frequency[:, None] ** 2 + frequency[None, :] ** 2))

    def brightest(image):
        return np.fft.ifft2(np.fft.fft2((image - np.median(image)) / image.std()) * blur).real.max()

    assert auc([max(map(brightest, scan.pixels)) for scan in scans], [scan.label for scan in scans]) > 0.95


def test_a_cohort_is_real_dicom_with_several_studies_for_some_and_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        studies = write_cohort(tmp_path / name, "alpha", 20, seed=3, unlabelled=2)
    first, second = (
        {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}
        for root in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second
    files = sorted((tmp_path / "a").rglob("*.dcm"))
    assert studies > 20 and len(files) == studies * SLICES
    dataset = pydicom.dcmread(files[0])
    assert dataset.pixel_array.shape == (SIZE, SIZE) and dataset.pixel_array.dtype == np.int16
    with (tmp_path / "a" / "clinical.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == studies - 2 and {row["lesion"] for row in rows} == {"0", "1"}
    assert len({row["StudyInstanceUID"] for row in rows}) == len(rows) > len({row["PatientID"] for row in rows})


def test_a_hundred_studies_are_written_quickly(tmp_path):
    start = time.process_time()
    write_cohort(tmp_path, "beta", 100, seed=1, second_study=0)
    assert time.process_time() - start < 10  # about 1 s; a bound for slow machines


def test_what_is_planted_is_really_there(tmp_path):
    write_cohort(tmp_path, "alpha", 10, seed=3)
    copy_pydicom_files(tmp_path / "pydicom")
    tokens = plant(tmp_path, 600, seed=3)
    assert len(tokens) == len(set(tokens)) >= 600
    assert {hit.token for hit in search([tmp_path], tokens)} == set(tokens)


def test_planting_says_so_when_there_is_no_room(tmp_path):
    write_cohort(tmp_path, "alpha", 1, seed=3, second_study=0)
    with pytest.raises(ValueError, match="more files"):
        plant(tmp_path, 10_000)

"""Slices read the fast way: the same findings as the patient way, on whole, broken and odd series."""

import random
from pathlib import Path

import pytest

from node.deid.engine import open_engine
from node.deid.pixels.series import integrity, read_slice
from node.deid.slices import SliceReader
from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.dicom_variety import variety

ENGINE = open_engine("eucaim")


def findings(paths: list[Path]) -> set[str]:
    fast, slow = SliceReader(ENGINE.vr_of), [read_slice(path) for path in paths]
    slices = [fast.read(path) for path in paths]
    for one, other in zip(slices, slow, strict=True):
        assert one is not None and other is not None
        assert (one.series, one.identity, one.number, one.syntax, one.frames) == (
            other.series,
            other.identity,
            other.number,
            other.syntax,
            other.frames,
        )
        assert one.along == pytest.approx(other.along)
    assert integrity(slices) == integrity(slow)
    return {finding.value for found in integrity(slices).values() for finding in found}


@pytest.mark.parametrize("seed", range(6))
def test_gaps_doubles_and_strangers_are_found_by_both(tmp_path, seed):
    chance, dataset, paths = random.Random(seed), ct_slice(), []
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.8, -0.6]
    for number in range(12):
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{number + 1}", number + 1
        dataset.ImagePositionPatient = [0, 0, 1.25 * number]
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(to_bytes(dataset))
    assert findings(paths) == set()
    assert findings([path for path in paths if path.name != "5.dcm"]) == {"missing_slices"}
    dataset.FrameOfReferenceUID = "1.2.3.99"
    dataset.ImagePositionPatient = [0, 0, 1.25 * chance.randint(0, 11)]
    paths[chance.randint(1, 11)].write_bytes(to_bytes(dataset))
    assert "mixed_series" in findings(paths)


def test_files_of_every_kind_say_the_same_to_both(tmp_path):
    read = 0
    for number, (_syntax, content) in enumerate(variety(11, 40)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        one, other = SliceReader(ENGINE.vr_of).read(path), read_slice(path)
        assert one is None or (other is not None and one.identity == other.identity and one.number == other.number)
        read += one is not None
    assert read > 0


def test_what_cannot_be_taken_apart_is_for_the_patient_reader(tmp_path):
    (tmp_path / "broken").write_bytes(to_bytes(ct_slice())[:400])
    assert SliceReader(ENGINE.vr_of).read(tmp_path / "broken") is None

"""Gaps, mixtures and doubles in a series have names."""

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from node.deid.pixels.series import SeriesFinding, integrity, read_slice
from tests.sim.dicom import ct_slice, to_bytes


def write(tmp_path, places, **elements):
    paths = []
    for number, place in enumerate(places, start=1):
        data = ct_slice()
        data.SOPInstanceUID, data.InstanceNumber = f"1.2.3.{number}", number
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0, 0, place]
        for keyword, values in elements.items():
            setattr(data, keyword, values[number - 1])
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(to_bytes(data))
        paths.append(path)
    return paths


def found(paths):
    return set().union(*integrity(read_slice(path) for path in paths).values(), ())


def test_a_whole_series_has_no_finding_in_any_order(tmp_path):
    paths = write(tmp_path, np.arange(20) * 1.25)
    assert found(paths) == set() and found(paths[::-1]) == set()


@pytest.mark.parametrize("missing", [1, 7, 18])
def test_a_missing_slice_is_a_gap(tmp_path, missing):
    places = [place for number, place in enumerate(np.arange(20) * 1.25) if number != missing]
    assert found(write(tmp_path, places)) == {SeriesFinding.MISSING}


def test_uneven_rounding_is_no_gap(tmp_path):
    assert found(write(tmp_path, [0, 3.33, 6.67, 10.0, 13.33, 16.67])) == set()


def test_oblique_slices_are_measured_along_their_normal(tmp_path):
    lean = [0.8, 0.0, -0.6, 0, 1, 0]
    normal = np.cross(lean[:3], lean[3:])
    at = [list(np.round(normal * 2 * number, 4)) for number in (0, 1, 2, 4, 5)]
    elements = {"ImagePositionPatient": at, "ImageOrientationPatient": [lean] * 5}
    assert found(write(tmp_path, range(5), **elements)) == {SeriesFinding.MISSING}


def test_without_positions_the_numbers_count(tmp_path):
    paths = write(tmp_path, range(4), ImagePositionPatient=[None] * 4, InstanceNumber=[1, 2, 4, 5])
    assert found(paths) == {SeriesFinding.MISSING}


def test_two_slices_at_one_place_are_doubles_and_two_echoes_are_not(tmp_path):
    twice = [0, 1, 1, 2, 3]
    assert found(write(tmp_path, twice)) == {SeriesFinding.DOUBLED}
    places = [0, 1, 2, 0, 1, 2]
    assert found(write(tmp_path, places, EchoNumbers=[1, 1, 1, 2, 2, 2])) == set()


@pytest.mark.parametrize(
    ("keyword", "other"), [("PatientID", "OTHER"), ("Modality", "MR"), ("FrameOfReferenceUID", "1.2.9")]
)
def test_a_mixed_series_is_named(tmp_path, keyword, other):
    paths = write(tmp_path, range(5), **{keyword: [getattr(ct_slice(), keyword)] * 4 + [other]})
    assert found(paths) == {SeriesFinding.MIXED}


def test_unreadable_syntaxes_and_headers_are_named(tmp_path):
    paths = write(tmp_path, range(3))
    raw = to_bytes(ct_slice(), ExplicitVRLittleEndian)
    paths[0].write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    paths.append(tmp_path / "nothing")
    paths[-1].write_bytes(b"nothing")
    assert found(paths) == {SeriesFinding.SYNTAX, SeriesFinding.HEADER}


def test_findings_are_told_by_series(tmp_path):
    paths = write(tmp_path, [0, 1, 2, 0, 1, 3], SeriesInstanceUID=["1.1"] * 3 + ["1.2"] * 3)
    assert integrity(read_slice(path) for path in paths) == {"1.2": (SeriesFinding.MISSING,)}

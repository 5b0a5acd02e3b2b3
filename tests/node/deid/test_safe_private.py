"""What research computes from private numbers, by vendor: before and after, the same number."""

import struct
from functools import partial

import numpy as np
import pydicom
import pytest
from pydicom._private_dict import private_dictionaries
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from node.deid.deidentify import Gate0
from node.deid.engine import open_engine
from node.deid.profiles import load_profile, profile_names, standard
from node.deid.source_folder import walk
from node.deid.stream import MemoryStream
from node.deid.verify import verify_folders
from tests.sim.dicom import ct_slice, raw_element, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")
RETAINING = sorted(name for name in profile_names() if "safe-private" in load_profile(name).options)
FORMS = ["explicit", "implicit", "un"]


def mr() -> Dataset:
    dataset = ct_slice()
    dataset.SOPClassUID, dataset.Modality = MRImageStorage, "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    return dataset


def put(dataset: Dataset, creator: str, group: int, element: int, vr: str, value: object, form: str) -> None:
    """A private element; in the form `un` its writer did not know the VR."""
    block = dataset.private_block(group, creator, create=True)
    block.add_new(element, vr, value)
    if form == "un":
        tag = block.get_tag(element)
        size = {"FL": "f", "FD": "d", "US": "H", "SL": "l", "SS": "h"}.get(vr)
        values = value if isinstance(value, list) else [value]
        raw = struct.pack(f"<{len(values)}{size}", *values) if size else "\\".join(map(str, values)).encode()
        dataset[tag] = raw_element(tag, "UN", raw + b" " * (len(raw) % 2))


def gated(tmp_path, dataset: Dataset, profile: str, form: str = "explicit") -> Dataset:
    gate = Gate0(open_engine(profile), KEYED, review=True)
    syntax = ImplicitVRLittleEndian if form == "implicit" else ExplicitVRLittleEndian
    name = f"{profile}{form}{len(list(tmp_path.iterdir()))}"
    outcome = gate.begin(MemoryStream(to_bytes(dataset, syntax)), tmp_path, lambda _: name)()
    assert outcome.place == "pass" and outcome.missed == {}, outcome
    return pydicom.dcmread(outcome.path)


def read(dataset: Dataset, creator: str, group: int, element: int, form: str = "") -> list[float]:
    """The numbers of a private element, in whatever form the file has them."""
    found = dataset.private_block(group, creator)[element]
    if not isinstance(found.value, bytes):
        return [float(one) for one in np.atleast_1d(found.value)]
    vr = load_profile("pseudonymise").private_rule(creator, found.tag).vrs[0]
    if vr in ("DS", "IS"):
        return [float(one) for one in found.value.decode().split("\\")]
    return list(np.frombuffer(found.value, {"FL": "<f4", "FD": "<f8", "US": "<u2"}[vr]).astype(float))


def adc(signals: list[float], weights: list[float]) -> float:
    """The apparent diffusion coefficient of mono-exponential decay, fitted over all b values."""
    return float(-np.polyfit(weights, np.log(signals), 1)[0])


SIGNALS, WEIGHTS = [900.0, 610.0, 402.0], [50, 400, 800]
DIFFUSION = {
    "siemens": ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", lambda b: b, lambda v: v[0]),
    "ge": ("GEMS_PARM_01", 0x0043, 0x39, "IS", lambda b: [10**9 + b, 8, 0, 0], lambda v: v[0] % 100_000),
    "philips": ("Philips Imaging DD 001", 0x2001, 0x03, "FL", float, lambda v: v[0]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("vendor", DIFFUSION)
@pytest.mark.parametrize("profile", RETAINING)
def test_adc_is_the_same(tmp_path, profile, vendor, form):
    creator, group, element, vr, says, means = DIFFUSION[vendor]
    found = []
    for weight in WEIGHTS:
        dataset = mr()
        put(dataset, creator, group, element, vr, says(weight), form)
        found.append(means(read(gated(tmp_path, dataset, profile, form), creator, group, element)))
    assert found == WEIGHTS and adc(SIGNALS, found) == adc(SIGNALS, WEIGHTS)


DIRECTIONS = {
    "siemens": ("SIEMENS MR HEADER", 0x0019, [(0x0E, "FD")]),
    "ge": ("GEMS_ACQU_01", 0x0019, [(0xBB, "DS"), (0xBC, "DS"), (0xBD, "DS")]),
    "philips": ("Philips MR Imaging DD 001", 0x2005, [(0xB0, "FL"), (0xB1, "FL"), (0xB2, "FL")]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("vendor", DIRECTIONS)
# the second is along one axis: the cosine of a right angle, as a computer has it
@pytest.mark.parametrize("direction", [[0.5, -0.25, 0.8125], [1.0, 2.0**-54, -(2.0**-45)]])
def test_directions_of_diffusion_are_the_same(tmp_path, vendor, form, direction):
    creator, group, elements = DIRECTIONS[vendor]
    dataset = mr()
    for place, (element, vr) in enumerate(elements):
        put(dataset, creator, group, element, vr, direction if len(elements) == 1 else direction[place], form)
    out = gated(tmp_path, dataset, "eucaim", form)
    assert [one for element, _ in elements for one in read(out, creator, group, element)] == direction


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", RETAINING)
def test_true_values_of_philips_are_the_same(tmp_path, profile, form):
    """The floating point value is (stored x slope + intercept) / (slope x scale slope)."""
    dataset = mr()
    dataset.RescaleSlope, dataset.RescaleIntercept = "1.7174", "-12.5"
    scale = float(np.float32(0.00123))
    put(dataset, "Philips MR Imaging DD 001", 0x2005, 0x0E, "FL", scale, form)
    put(dataset, "Philips MR Imaging DD 001", 0x2005, 0x0D, "FL", 0.25, form)
    out = gated(tmp_path, dataset, profile, form)
    (kept,), (intercept,) = (read(out, "Philips MR Imaging DD 001", 0x2005, at) for at in (0x0E, 0x0D))
    values = [(one.pixel_array * one.RescaleSlope + one.RescaleIntercept) for one in (dataset, out)]
    assert (
        np.array_equal(values[0] / (1.7174 * scale), values[1] / (float(out.RescaleSlope) * kept)) and intercept == 0.25
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", RETAINING)
def test_suv_of_philips_counts_is_the_same(tmp_path, profile, form):
    dataset = ct_slice()
    dataset.SOPClassUID, dataset.Modality, dataset.Units = PositronEmissionTomographyImageStorage, "PT", "CNTS"
    put(dataset, "Philips PET Private Group", 0x7053, 0x00, "DS", "0.000276340", form)
    put(dataset, "Philips PET Private Group", 0x7053, 0x09, "DS", "1.872500", form)
    out = gated(tmp_path, dataset, profile, form)
    (suv,), (activity,) = (read(out, "Philips PET Private Group", 0x7053, at) for at in (0x00, 0x09))
    assert (suv, activity, out.Units) == (0.00027634, 1.8725, "CNTS")


@pytest.mark.parametrize("form", FORMS)
def test_times_of_slices_are_the_same(tmp_path, form):
    dataset = mr()
    put(dataset, "SIEMENS MR HEADER", 0x0019, 0x29, "FD", [0.0, 1107.5, 55.0, 1162.5], form)
    put(dataset, "SIEMENS MR HEADER", 0x0019, 0x0A, "US", 4, form)
    put(dataset, "GEMS_RELA_01", 0x0021, 0x5E, "DS", "1.1075", form)
    out = gated(tmp_path, dataset, "eucaim", form)
    assert read(out, "SIEMENS MR HEADER", 0x0019, 0x29) == [0.0, 1107.5, 55.0, 1162.5]
    assert read(out, "SIEMENS MR HEADER", 0x0019, 0x0A) == [4] and read(out, "GEMS_RELA_01", 0x0021, 0x5E) == [1.1075]


@pytest.mark.parametrize("form", ["explicit", "implicit"])
def test_a_frame_of_an_enhanced_image_keeps_its_private_numbers(tmp_path, form):
    """Philips has the elements of a single image in a private sequence of each frame, names among them."""
    dataset, frame, single = mr(), Dataset(), Dataset()
    put(single, "Philips MR Imaging DD 001", 0x2005, 0x0E, "FL", 0.5, "explicit")
    put(single, "Philips Imaging DD 001", 0x2001, 0x03, "FL", 800.0, "explicit")
    put(single, "SOMEBODY", 0x2005, 0x07, "LO", "Hartog", "explicit")
    single.PatientName, single.InstanceCreationDate = "Hartog^Wilhelmina", "20240301"
    frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [single])
    dataset.PerFrameFunctionalGroupsSequence = [frame]
    out = gated(tmp_path, dataset, "eucaim", form)
    kept = out.PerFrameFunctionalGroupsSequence[0].private_block(0x2005, "Philips MR Imaging DD 005")[0x0F].value
    if isinstance(kept, bytes):  # in implicit VR a reader must know that it is a sequence
        kept = pydicom.values.convert_SQ(kept, True, True)
    assert read(kept[0], "Philips MR Imaging DD 001", 0x2005, 0x0E) == [0.5]
    assert read(kept[0], "Philips Imaging DD 001", 0x2001, 0x03) == [800.0]
    raw = (tmp_path / f"eucaim{form}0").read_bytes()
    assert b"artog" not in raw and b"SOMEBODY" not in raw and b"20240301" not in raw


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5", "pseudonymise"])
def test_private_times_go_the_way_of_the_profiles_dates(tmp_path, profile):
    dataset = ct_slice()
    put(dataset, "GEMS_PETD_01", 0x0009, 0x0D, "DT", "20240301103000.00", "un")
    out = gated(tmp_path, dataset, profile)
    private = str(out.private_block(0x0009, "GEMS_PETD_01")[0x0D].value)
    assert private[:8] == out.StudyDate and private[8:] == "103000.00"


@pytest.mark.parametrize(
    ("vr", "raw"),
    [("IS", b"Hartog"), ("UN", b"Hartog"), ("LO", b"b Hartog"), ("DS", b"800 Hartog")],
)  # fmt: skip
def test_words_in_a_safe_element_do_not_stay_and_are_told(tmp_path, vr, raw):
    dataset = mr()
    tag = dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).get_tag(0x0C)
    dataset[tag] = raw_element(tag, vr, raw)
    outcome = Gate0(open_engine("eucaim"), KEYED, review=True).begin(
        MemoryStream(to_bytes(dataset)), tmp_path, lambda _: "a"
    )()
    assert b"Hartog" not in outcome.path.read_bytes()
    assert outcome.missed == {"SIEMENS MR HEADER (0019,xx0C)": 1}


@pytest.fixture(autouse=True)
def _as_it_stands(monkeypatch):
    """pydicom writes the VR it knows where a test says UN."""
    monkeypatch.setattr(pydicom.config, "replace_un_with_known_vr", False)


@pytest.mark.parametrize("vr", ["UN", "FL"])
@pytest.mark.parametrize("text", [b"JANSEN  ", b"Jan ", b"HartogWilhelmina"])
def test_words_in_a_safe_float_do_not_stay(tmp_path, text, vr):
    dataset = mr()
    tag = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True).get_tag(0x03)
    dataset[tag] = raw_element(tag, vr, text)
    assert vr.encode() + (b"\0\0" if vr == "UN" else b"") + bytes([len(text)]) in to_bytes(dataset)
    outcome = Gate0(open_engine("eucaim"), KEYED, review=True).begin(
        MemoryStream(to_bytes(dataset)), tmp_path, lambda _: "a"
    )()
    assert text not in outcome.path.read_bytes()


def test_the_list_says_what_pydicoms_private_dictionary_says():
    rows, known = standard().safe_private, 0
    for row in rows:
        if (told := private_dictionaries.get(row.creator, {}).get(f"{row.group:04X}xx{row.element:02X}")) is not None:
            known += 1
            assert told[0] == row.vr, row
    assert known > 45 and sum(row.listed for row in rows) > 30
    assert {row.vr for row in rows} <= {"DS", "IS", "US", "SS", "SL", "FL", "FD", "CS", "DT", "SQ"}
    assert all(row.terms for row in rows if row.vr == "CS")


def test_a_series_whose_private_elements_change_is_written_as_each_file_alone(tmp_path):
    """What is remembered from file to file: groups that stay, that change, that come and go, that are large."""
    warm = Gate0(open_engine("eucaim"), KEYED, review=True)
    for number in range(8):
        dataset = mr()
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{number}", number
        block = dataset.private_block(0x19, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", 100 * (number // 2))
        block.add_new(0x08, "CS", "IMAGE NUM 4")
        if number % 3:
            block.add_new(0x16, "DS", f"{number}.5")
        other = dataset.private_block(0x19, "SOMEBODY", create=True)
        other.add_new(0x0C, "IS", 7)
        dataset.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", 800.0)
        dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", bytes(20_000 * (number > 4)))
        raw = to_bytes(dataset)
        alone = Gate0(open_engine("eucaim"), KEYED, review=True)
        paths = [
            warm.begin(MemoryStream(raw), tmp_path, lambda _: "warm")().path,
            alone.begin(MemoryStream(raw), tmp_path, lambda _: "alone")().path,
        ]
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert read(pydicom.dcmread(paths[0]), "SIEMENS MR HEADER", 0x19, 0x0C) == [100 * (number // 2)]
        for path in paths:
            path.unlink()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", RETAINING)
def test_a_name_in_the_bytes_of_a_private_number_does_not_leave(tmp_path, profile, form):
    """Read as a double, `VICTORIA` could be a bandwidth; nobody's name of eight letters is there by chance."""
    dataset = mr()
    dataset.PatientName = "VICTORIA^Q"
    put(dataset, "SIEMENS MR HEADER", 0x0019, 0x28, "FD", struct.unpack("<d", b"VICTORIA")[0], form)
    gate = Gate0(open_engine(profile), KEYED, review=True)
    syntax = ImplicitVRLittleEndian if form == "implicit" else ExplicitVRLittleEndian
    outcome = gate.begin(MemoryStream(to_bytes(dataset, syntax)), tmp_path, lambda _: "out")()
    assert (outcome.place, outcome.reasons) == ("refuse", (Exclusion.RESIDUAL_IDENTIFIER,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("profile", RETAINING)
def test_a_maker_may_be_called_as_a_patient_is(tmp_path, profile):
    """Somebody called Philips: the block's creator is nobody's name, at the second search and for `verify`."""
    dataset = mr()
    dataset.PatientName = "Philips^Jan"
    put(dataset, "Philips Imaging DD 001", 0x2001, 0x03, "FL", 800.0, "explicit")
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "a").write_bytes(original := to_bytes(dataset, ExplicitVRLittleEndian))
    gate = Gate0(open_engine(profile), KEYED, review=True)
    outcome = gate.begin(MemoryStream(original), out, lambda _: "a")()
    assert outcome.path is not None and gate.again(MemoryStream(original), outcome.lost, outcome.path) is None
    assert verify_folders(str(source), str(out), load_profile(profile), walk, KEYED).findings == []
    # in a block of somebody's own it is a name
    stolen = outcome.path.read_bytes().replace(b"Philips Imaging DD 001", b"Philips Imaging DD 999")
    outcome.path.write_bytes(stolen)
    (finding,) = verify_folders(str(source), str(out), load_profile(profile), walk, KEYED).findings
    assert "(2001,0010)" in finding.where
    assert gate.again(MemoryStream(original), outcome.lost, outcome.path) is Exclusion.RESIDUAL_IDENTIFIER


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5"])
@pytest.mark.parametrize("form", ["explicit", "implicit"])
def test_private_dates_are_compared_where_the_file_does_not_say_that_they_are_dates(tmp_path, profile, form):
    dataset = ct_slice()
    put(dataset, "GEMS_PETD_01", 0x0009, 0x0D, "DT", "20240317101500.00", form)
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    syntax = ImplicitVRLittleEndian if form == "implicit" else ExplicitVRLittleEndian
    (source / "a").write_bytes(to_bytes(dataset, syntax))
    made = gated(out, dataset, profile, form)
    (path,) = out.iterdir()
    said = made.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
    said = said.decode() if isinstance(said, bytes) else str(said)
    assert said.strip() != "20240317101500.00"
    checked = partial(verify_folders, str(source), str(out), load_profile(profile), walk, KEYED)
    assert checked().findings == []
    path.write_bytes(path.read_bytes().replace(said.strip().encode(), b"20240317101500.00"))
    (finding,) = checked().findings
    assert (finding.kind, finding.where) == ("date", "(0009,100D)")


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5"])
def test_dates_in_a_vr_of_text_are_compared_with_what_they_were(tmp_path, profile):
    dataset = ct_slice()
    dataset[0x00080020] = raw_element(0x00080020, "LO", b"20240320")
    dataset.SeriesDate, dataset.AcquisitionDate = "20240321", "20240319"
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "a").write_bytes(to_bytes(dataset, ExplicitVRLittleEndian))
    gated(out, dataset, profile)
    assert verify_folders(str(source), str(out), load_profile(profile), walk, KEYED).findings == []

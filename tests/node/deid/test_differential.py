"""The fast path against the patient one, which reads through pydicom: the same bytes come out, or it is refused."""

import os
import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.element import usual_vr
from node.deid.engine import ProfileEngine, Source, open_engine
from node.deid.facts import facts_of, fitted
from node.deid.lenient import parse_leniently
from node.deid.profiles import standard
from node.deid.stream import MemoryStream
from node.deid.structure import Unreadable
from tests.sim.dicom import PIXELS, ct_slice, element, raw_file, to_bytes
from tests.sim.dicom_variety import variety

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100)
VRS = {tag: usual_vr(entry.vrs) for tag, entry in standard().elements.items()}
SAMPLES = os.environ.get("CLOISTER_DICOM_SAMPLES", "")
FOLDERS = [Path(pydicom.__file__).parent / "data" / "test_files", *([Path(SAMPLES)] if SAMPLES else [])]


def patient_reader(content: bytes) -> Source | Exclusion:
    try:
        parsed = parse_leniently(MemoryStream(content), lambda tag: VRS.get(tag, "UN"))
    except Unreadable as problem:
        return problem.finding
    return Source(facts_of(parsed), parsed.finding, fitted(parsed) or parsed)


def cold() -> ProfileEngine:
    return open_engine("eucaim")


def written(engine: ProfileEngine, source: Source, path: Path, subject: Subject = SUBJECT) -> bytes | Exclusion:
    refused = engine.write(source, subject, path)
    if refused is not None:
        return refused
    raw = path.read_bytes()
    path.unlink()
    return raw


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("profile", ["eucaim", "basic"])
def test_generated_files_of_every_vr_nesting_and_syntax(tmp_path, seed, profile):
    """The warm engine has seen other files before; the cold one reads through pydicom and remembers nothing."""
    warm = open_engine(profile)
    for syntax, content in variety(seed, 40):
        fast, slow = warm.read(content), patient_reader(content)
        assert isinstance(fast, Source) and isinstance(slow, Source), syntax
        assert fast.facts == slow.facts
        assert written(warm, fast, tmp_path / "a") == written(open_engine(profile), slow, tmp_path / "a"), syntax


def test_real_files(tmp_path):
    same = refused = 0
    warm = open_engine("eucaim")
    for path in sorted(file for folder in FOLDERS for file in folder.rglob("*") if file.is_file()):
        content = path.read_bytes()
        fast = warm.read(content)
        if isinstance(fast, Exclusion) or fast.finding is not None:
            refused += 1
            continue
        if fast.parsed.doubt is not None:  # read by force: the patient one is not asked
            continue
        slow = patient_reader(content)
        if isinstance(slow, Exclusion):
            assert slow in (Exclusion.TOO_LARGE, Exclusion.MALFORMED, Exclusion.TRUNCATED), path.name
            refused += 1
            continue
        subject = Subject(KEYED, KEYED.patient(fast.facts.patient_id), 100)
        there, here = (written(engine, one, tmp_path / "a", subject) for engine, one in ((warm, fast), (cold(), slow)))
        assert there == here, path.name
        same += 1
    assert same >= 100 and refused < same


def test_elements_out_of_order_go_the_patient_way(tmp_path):
    """The strict reader refuses them; what comes out is in order and as clean."""
    whole = to_bytes(ct_slice())
    name = element(0x00100010, b"PN", b"Hartog^Wilhelmina ")
    at = whole.index(name)
    shuffled = whole[:at] + whole[at + len(name) :]
    start = whole.index(struct.pack("<HH", 0x0008, 0x0005))
    shuffled = shuffled[:start] + name + shuffled[start:]
    engine = open_engine("eucaim")
    source = engine.read(shuffled)
    assert isinstance(source, Source)
    assert written(engine, source, tmp_path / "a") == written(engine, engine.read(whole), tmp_path / "a")


def test_a_dataset_in_another_vr_form_than_its_file_says(tmp_path):
    implicit = to_bytes(ct_slice(), "1.2.840.10008.1.2")
    body = implicit[implicit.index(struct.pack("<HH", 0x0008, 0x0005)) :]
    engine = open_engine("eucaim")
    source = engine.read(raw_file(body, ExplicitVRLittleEndian))
    assert isinstance(source, Source)
    raw = written(engine, source, tmp_path / "a")
    assert isinstance(raw, bytes) and raw.endswith(PIXELS)
    (tmp_path / "b").write_bytes(raw)
    out = pydicom.dcmread(tmp_path / "b")
    assert out.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian and out.PixelData == PIXELS
    assert b"Hartog" not in raw


@pytest.mark.parametrize("cut", [1, 7, 8, 20, 30])
def test_the_patient_reader_is_not_patient_with_what_is_cut_short(cut):
    body = element(0x00100020, b"LO", b"1234") + element(0x00100010, b"PN", b"Hartog^Wilhelmina ")
    body += element(
        0x00081140, b"SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + element(0x00080050, b"SH", b"abcd"), 0xFFFFFFFF
    )
    found = open_engine("eucaim").read(raw_file(body[:-cut]))
    assert found in (Exclusion.TRUNCATED, Exclusion.MALFORMED)

"""What the standard and its users call things stays: every term of every attribute, kernels, models, structures."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from deploy.lib.deid_terms import TABLE as TERMS
from deploy.lib.deid_terms import listed_in, read
from mediator.deid.identifiers import Identifier, Own
from mediator.deid.mandatory import Mandatory
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ElementAction
from mediator.deid.tables import LISTS
from mediator.deid.values import Subject, decide
from node.deid.engine import open_engine
from node.deid.profiles import load_profile, profile_names, standard
from node.deid.source_folder import walk
from node.deid.verify import verify_folders
from tests.sim.dicom import ct_slice, raw_element, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100, "alpha")
BY_KEYWORD = standard().by_keyword()
GOES = {ElementAction.REMOVE, ElementAction.EMPTY, ElementAction.CONSTANT, ElementAction.DUMMY}
# PS3.15 Table E.1-1 without an option, and what we state ourselves
GONE_BY_RULE = {
    "PatientIdentityRemoved", "LongitudinalTemporalInformationModified", "InstanceOriginStatus",
    "RoboticBaseLocationIndicator", "SmokingStatus", "ReasonForTheAttributeModification",
    "PatientSexNeutered", "PatientSex",
}  # fmt: skip
KERNELS = [
    "STANDARD", "BONEPLUS", "CHST", "LUNG", "DETAIL", "SOFT", "EDGE", "HD STND", "B30f", "B70s", "H31s", "I31f\\3",
    "Br40d\\3", "Bl57", "Qr40", "FC08", "FC51", "YB", "EC", "B", "IMR1", "XYZ Gauss5.00", "B_SOFT_B", "ALLPASS",
]  # fmt: skip
STAYS = {
    "ConvolutionKernel": KERNELS,
    "ManufacturerModelName": [
        "SOMATOM Definition AS+", "Biograph64_Vision 450", "LightSpeed VCT", "Discovery CT750 HD", "iCT 256",
        "Prisma_fit", "Aquilion ONE", "uMI 780", "Ingenuity TF PET/CT", "LOGIQ E9", "IQon - Spectral CT",
    ],
    "ROIName": [
        "Lung_L", "SpinalCord", "Bag_Bowel", "GTVp", "PTV_High", "PTV_5040", "CTVn1", "iGTV", "PTV_60 Gy", "Parotid_R",
        "LUNG L", "zPTV_Low", "Liver-GTV",
    ],
    "SegmentLabel": ["Kidney_R", "Liver", "GTV"],
    "ContrastBolusAgent": [
        "Omnipaque 350", "11 ml Omniscan", "ISOVUE300/100 ml", "Gadavist, 7.5 ml", "DOTAREM", "Ultravist-370",
    ],
    "SeriesDescription": [
        "AX T2 FLAIR PROPELLER", "T1 MPRAGE SAG 1.0mm", "PET WB NAC", "DWI b1000", "LUNG 1.25mm B70f",
    ],
}  # fmt: skip


def written(path, dataset, profile="eucaim"):
    engine = open_engine(profile)
    with config.disable_value_validation():
        assert engine.write(engine.read(to_bytes(dataset)), SUBJECT, path) is None
        return pydicom.dcmread(path)


def of(keyword, value):
    element = BY_KEYWORD[keyword]
    raw = value.encode()
    return raw_element(element.tag, element.vrs[0], raw + b" " * (len(raw) % 2))


@pytest.mark.parametrize("profile", profile_names())
def test_no_term_that_the_standard_lists_for_an_attribute_is_emptied(tmp_path, profile):
    """Every one of them through the engine, in items of one file; what a rule removes whatever it says is not meant."""
    table, listed = load_profile(profile), {k: sorted(v) for k, v in standard().defined.items()}
    keywords = [key for key in listed if table.rule(BY_KEYWORD[key].tag).action not in GOES]
    rounds = max(len(listed[key]) for key in keywords)
    dataset = ct_slice()
    dataset.ContentSequence = Sequence([])
    for number in range(rounds):
        item = Dataset()
        for key in keywords:
            if number < len(listed[key]):
                item[BY_KEYWORD[key].tag] = of(key, listed[key][number])
        dataset.ContentSequence.append(item)
    out = written(tmp_path / "a", dataset, profile)
    said = [(e.keyword, str(e.value)) for item in out.ContentSequence for e in item]
    assert sorted(said) == sorted((key, term) for key in keywords for term in listed[key])
    assert len(keywords) >= 570 and len(said) >= 2_400, (len(keywords), len(said))
    removed = {key for key in listed if key not in keywords and BY_KEYWORD[key].vrs == ("CS",)}
    assert {key for key in removed if not key.startswith("GPS")} <= GONE_BY_RULE


@pytest.mark.parametrize("keyword", sorted(STAYS))
def test_what_an_attribute_is_called_by_its_users_stays_as_it_is_written(keyword):
    rule, table = load_profile("eucaim").rule(BY_KEYWORD[keyword].tag), load_profile("eucaim")
    assert rule.action is ElementAction.CLEAN
    lost = []
    for value in STAYS[keyword]:
        kept = decide(rule, rule.vrs[0], tuple(value.split("\\")), table, SUBJECT)
        if "\\".join(kept.values) != value:
            lost.append((value, kept.values))
    assert lost == []


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5", "pseudonymise"])
@pytest.mark.parametrize("name", sorted(LISTS))
def test_every_value_of_a_list_stays_unless_the_patient_is_called_so(profile, name):
    table, (keyword, *_more) = load_profile(profile), LISTS[name]
    rule = table.rule(BY_KEYWORD[keyword].tag)
    for value in sorted(standard().listed[keyword]):
        assert decide(rule, rule.vrs[0], (value,), table, SUBJECT).values == (value,)
        word = max(value.replace("-", " ").split(), key=len)
        if len(word) >= 4 and word.isalpha() and word not in ("none", "unknown"):
            whose = Own([Identifier("name", f"{word.title()}^Zzyzx")])
            subject = Subject(KEYED, SUBJECT.patient, 100, own=whose)
            left = " ".join(decide(rule, rule.vrs[0], (value,), table, subject).values)
            assert word not in left.casefold() and not whose.name(left, cleaned=True)


def structures(names, sequence="StructureSetROISequence", keyword="ROIName"):
    dataset = ct_slice()
    dataset.PatientName = "Vandersteen^Lung"
    items = []
    for name in names:
        item = Dataset()
        item.ROINumber = len(items) + 1
        if name is not None:
            setattr(item, keyword, name)
        items.append(item)
    setattr(dataset, sequence, Sequence(items))
    return dataset


@pytest.mark.parametrize("profile", ["eucaim", "basic"])
def test_names_of_structures_that_had_to_go_are_told_apart(tmp_path, profile):
    names = ["Vandersteen", "Liver", "Janssen 12.03.65", "Lung_L", "liver Janssen", "Janssen", "", None, "Liver"]
    out = written(tmp_path / "a", structures(names), profile)
    said = [item.get("ROIName") for item in out.StructureSetROISequence]
    if profile == "basic":
        assert said == [f"STRUCTURE {n}" if names[n - 1] else names[n - 1] for n in range(1, 10)]
    else:
        assert said == ["STRUCTURE 1", "Liver", "STRUCTURE 3", "L", "liver 5", "STRUCTURE 6", "", None, "Liver"]


NAMES = ["Heart", "Heart Mol", "Mol", "Mol 2", "PTV_High", "Structure 1", "Smith", "STRUCTURE", "GTV"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=8))
def test_different_names_stay_different(tmp_path_factory, names):
    for sequence, keyword in (("StructureSetROISequence", "ROIName"), ("SegmentSequence", "SegmentLabel")):
        out = written(tmp_path_factory.mktemp("a") / "a", structures(names, sequence, keyword))
        said = [getattr(item, keyword) for item in out[sequence].value]
        for one, other in zip(names, said, strict=True):
            same = [at for at, name in enumerate(names) if name == one]
            assert {said[at] for at in range(len(said)) if at not in same}.isdisjoint({other})


def test_an_ordinal_is_nobodys_number_and_another_number_behind_a_name_is(tmp_path):
    """Patient 12 has twelve structures; what another tool left of number 4711 is found."""
    originals, outputs, left = tmp_path / "in", tmp_path / "out", tmp_path / "left"
    for folder in (originals, outputs, left):
        folder.mkdir()
    dataset = structures([f"Vandersteen Q{letter}" for letter in "ABCDEFGHIJKL"])
    dataset.PatientID, dataset.OtherPatientIDs = "12", "4711"
    (originals / "a").write_bytes(to_bytes(dataset))
    out = written(outputs / "a", dataset)
    assert out.StructureSetROISequence[11].ROIName == "STRUCTURE 12"
    table = load_profile("eucaim")
    assert verify_folders(str(originals), str(outputs), table, walk).findings == []
    out.StructureSetROISequence[3].ROIName = "STRUCTURE 4711"
    with config.disable_value_validation():
        out.save_as(left / "a")
    places = [one.where for one in verify_folders(str(originals), str(left), table, walk).findings]
    assert places == ["(3006,0020) > (3006,0026)"]


HTML = """<td><p>Kind of thing.</p><div><p><strong>Enumerated Values:</strong></p><dl><dt><span>ONE_WAY</span></dt>
<dd><p>lower text</p></dd><dt><span>TWO WAY</span></dt><dd></dd><dt>nnn</dt><dd/></dl></div></td>"""


def test_terms_are_what_stands_in_lists_that_are_headed_so():
    assert list(listed_in(HTML)) == ["ONE_WAY", "TWO WAY"]
    assert list(listed_in(HTML.replace("Enumerated Values", "Notes"))) == []
    assert list(listed_in(HTML.replace("Enumerated Values:", "Defined Terms for Value 3:"))) == ["ONE_WAY", "TWO WAY"]


def test_the_generator_reads_what_stands_beside_an_attribute_and_where_it_points(tmp_path):
    attributes = [("(0018,0022)", "ScanOptions", "CS"), ("(0018,9004)", "ContentQualification", "CS")]
    attributes += [("(0004,1430)", "DirectoryRecordType", "CS"), ("(0010,0010)", "PatientName", "PN")]
    rows = [{"tag": tag, "description": HTML, "externalReferences": []} for tag, _keyword, _vr in attributes]
    pointing = {"tag": "(0018,9004)", "description": "<p>See C.8 for Defined Terms.</p>"}
    rows[1] = {**pointing, "externalReferences": [{"sourceUrl": "there"}]}
    files = {
        "attributes.json": [{"tag": t, "keyword": k, "valueRepresentation": v} for t, k, v in attributes],
        "module_to_attributes.json": rows[:1], "macro_to_attributes.json": rows[1:],
        "references.json": {"there": HTML.replace("ONE_WAY", "PRODUCT")},
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert read(tmp_path) == {"ScanOptions": {"ONE_WAY", "TWO WAY"}, "ContentQualification": {"PRODUCT", "TWO WAY"}}
    script = Path(TERMS).parents[3] / "deploy" / "lib" / "deid_terms.py"
    done = subprocess.run([sys.executable, str(script), "--check", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 4 and "ScanOptions: ONE_WAY TWO WAY" in done.stdout


def test_the_table_is_as_its_generator_writes_it():
    with TERMS.open(encoding="utf-8", newline="") as file:
        rows = [(row["keyword"], row["terms"].split("|")) for row in csv.DictReader(file)]
    assert [key for key, _terms in rows] == sorted(key for key, _terms in rows)
    assert all(len(terms) == len(set(terms)) for _key, terms in rows)
    assert {key for key, _terms in rows} <= set(BY_KEYWORD)
    assert Mandatory(standard()).lists(BY_KEYWORD["DVHType"].tag, "CUMULATIVE") is False  # not Type 1 where it may go


def test_a_profile_has_one_fingerprint_in_every_process():
    """Lists are sets; the pattern made of one must not follow their order."""
    script = "from node.deid.profiles import load_profile; print(load_profile('eucaim').fingerprint)"
    told = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


GIVEN = (
    "Ada Adam Alice Alma Amina Ana Anna Astrid Ben Birgit Camille Carmen Chiara Eva Elena Elif Ella Emma Erik Ewa Finn"
    " Franz Freja Grace Hans Hanna Hope Ida Ines Ingrid Ivan Ivana Jack Jade Jan Jana Joana Joy June Karin Lars Laura"
    " Lea Lena Leon Lisa Liv Luc Luca Lucia Luis Maja Marc Maria Marie Max May Mia Nils Nina Nora Ole Omar Otto Paola"
    " Petr Petra Pierre Piet Rosa Rose Rui Ruby Sam Sara Sofia Sue Sven Tim Tom Zofia"
)


def test_what_many_are_called_is_no_listed_word():
    """A description may name somebody whom no element of the file names."""
    assert not standard().terms & set(GIVEN.upper().split())

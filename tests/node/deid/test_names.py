"""Names and numbers of a patient that are terms, too: whoever is called so, they stand in no text of the output.

Generated: who is called what, where a file says so, how it is typed elsewhere, in which element, VR, depth and syntax.
"""

import io
import random
import re
import unicodedata

import pydicom
import pytest
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mediator.deid.mandatory import Mandatory
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ElementAction
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.explain import explain_file
from node.deid.profiles import load_profile, profile_names, standard
from tests.sim.dicom import ct_slice, raw_element, to_bytes
from tests.sim.profiles import careless_engine

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100, "alpha")
ELEMENTS = standard().elements
LISTED = Mandatory(standard())
TAG_OF = {element.keyword: tag for tag, element in ELEMENTS.items()}
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
# What a file says, and as what somebody typed it elsewhere: all of it listed terms.
CALLED = [
    ("Hand^Zz", "HAND"), ("White^Black", "Black White"), ("Dixon^Sharp", "dixon"), ("Small^Ion", "ION"),
    ("Lung", "Lung"), ("Hüft^Händ", "HAND"), ("Bo\u0308ne^X", "BONE"), ("Boene^X", "BONE"), ("Rain^X", "BRAIN"),
    ("Tran^X", "TRANSVERSE"),
    ("Whitehead^X", "WHITE HEAD"), ("White-Head^X", "HEAD"), ("van der Head^Al", "AL"), ("Cor^Per", "COR"),
    ("Smith^X^^Dr^SR", "SR"), ("Yamada^Tarou=山田^太郎=やまだ^Head", "HEAD"), ("Ge^X", "GE"), ("Mary^X", "PRIMARY"),
    ("Wu^Bo", "WU1"), ("Wu^Bo", "bo1a"), ("Li^Ming", "Li2"), ("Ng-Fc^X", "FC08"),
]  # fmt: skip
NUMBERED = [("AB123", "AB123"), ("P017", "p017"), ("N45", "N45a"), ("T-2", "T2"), ("FC-08", "FC08"), ("HAND", "HAND")]
NUMBERED += [("123", "T123")]
PEOPLE = [
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName",
    "OperatorsName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord",
    "RequestingPhysician", "ResponsiblePerson",
]  # fmt: skip
NUMBERS = ["PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "StudyID", "ClinicalTrialSubjectID"]
INSIDE = ["OriginalAttributesSequence", "RequestAttributesSequence", "ContentSequence", "AnatomicRegionSequence"]
DESCRIPTIONS = {
    TAG_OF[keyword]
    for keyword in ("StudyDescription", "SeriesDescription", "ProtocolName", "BodyPartExamined", "ImageType", "ROIName")
}
OTHERS = ["CT", "CHEST", "5mm", "WITH", "KIDNEY", "B30f"]


def texts_of(profile):
    """Elements of text in which the profile lets words stand."""
    rules = load_profile(profile).rules.items()
    open_to_words = (ElementAction.CLEAN, ElementAction.MEANING, ElementAction.LABEL, ElementAction.CODE)
    vrs = ({"LO"}, {"SH"}, {"CS"}, {"ST"}, {"LT"}, {"UC"}, {"UT"})
    return sorted(tag for tag, rule in rules if rule.action in open_to_words and set(rule.vrs) in vrs)


def within(item, depth, chance):
    """The item that many sequences deep."""
    for _ in range(depth):
        outer = Dataset()
        setattr(outer, chance.choice(INSIDE[2:]), Sequence([item]))
        item = outer
    return item


def join(dataset, other):
    """What `other` holds, in `dataset`, too; sequences become longer."""
    for element in other:
        if element.VR == "SQ" and element.tag in dataset:
            dataset[element.tag].value.extend(element.value)
        else:
            dataset[element.tag] = element


def say_so(dataset, keyword, value, chance):
    """Where a file says who it is: at its top, in sequences that stay, that go, that are private, in UN."""
    item = Dataset()
    setattr(item, keyword, value)
    where = chance.choice(["top", "top", "deep", "lost", "private", "un"])
    match where:
        case "deep":
            join(dataset, within(item, 1 + chance.randrange(3), chance))
        case "lost":
            record = Dataset()
            record.ModifiedAttributesSequence = Sequence([item])
            dataset.OriginalAttributesSequence = Sequence([record])
        case "private":
            dataset.private_block(0x0009, "SOMEBODY", create=True).add_new(1, "SQ", Sequence([item]))
        case "un":
            raw = value.encode() + b" " * (len(value.encode()) % 2)
            dataset[TAG_OF[keyword]] = raw_element(TAG_OF[keyword], "UN", raw)
        case _:
            join(dataset, item)
    return where


def type_it(dataset, tags, typed, chance):
    """The name among other words, in every element of text there is, at some depth; what is to be left of it."""
    for tag in tags:
        words = [chance.choice(OTHERS) for _ in range(chance.randrange(3))]
        words.insert(chance.randrange(len(words) + 1), typed)
        vr = ELEMENTS[tag].vrs[0]
        value = (typed.upper() if vr == "CS" else chance.choice([" ", "-", ", ", "_"]).join(words)).encode()
        item = Dataset()
        item[tag] = raw_element(tag, vr, value + b" " * (len(value) % 2))
        depth = chance.randrange(4)
        join(dataset, within(item, depth, chance))


def plainly(text):
    """Folded by another road than the product's."""
    for one, other in (("ß", "ss"), ("æ", "ae"), ("ø", "o")):
        text = text.casefold().replace(one, other)
    return "".join(one for one in unicodedata.normalize("NFD", text) if unicodedata.category(one) != "Mn")


def stands(output, typed):
    """Elements whose text holds the words as they were typed, but what is the standard's own and what is ours."""
    words, found = [plainly(word) for word in typed.split()], []
    for element in output.iterall():
        if element.VR not in ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT") or element.tag.group == 0x12:
            continue
        for value in element.value if element.VM > 1 else [element.value]:
            held = re.findall(r"[^\W_]+", plainly(str(value or "")))
            listed = standard().defined.get(element.keyword, ())
            if str(value) in listed or LISTED.lists(element.tag, str(value)) or str(value) == "OTHER":
                continue
            runs = [held[at : at + len(words)] for at in range(len(held))]
            if words in runs or any(word in held for word in words if len(words) == 1):
                found.append((element.tag, str(value)))
    return found


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("seed", range(3))
def test_no_name_and_no_number_stands_in_any_text(tmp_path, profile, seed):
    chance, engine = random.Random(f"{profile} {seed}"), open_engine(profile)
    tags = texts_of(profile)
    for number, (called, typed) in enumerate([*CALLED, *NUMBERED]):
        dataset = ct_slice()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName = "Zyx^Wvu"
        keyword = chance.choice(PEOPLE if number < len(CALLED) else NUMBERS)
        if (called, keyword) == ("HAND", "StudyID"):
            keyword = "PatientID"
        with config.disable_value_validation():
            type_it(dataset, {*chance.sample(tags, 40), *DESCRIPTIONS.intersection(tags)}, typed, chance)
            where = say_so(dataset, keyword, called, chance)
            # what an implicit file has in a private sequence nobody can take apart
            syntaxes = [one for one in SYNTAXES if where != "private" or one != ImplicitVRLittleEndian]
            content = to_bytes(dataset, chance.choice(syntaxes))
        path = tmp_path / f"{number}"
        refused = engine.write(engine.read(content), SUBJECT, path)
        assert refused is None, (called, typed, keyword)
        with config.disable_value_validation():
            assert stands(pydicom.dcmread(io.BytesIO(path.read_bytes())), typed) == [], (called, typed, keyword, where)


def written(path, dataset, profile="eucaim"):
    engine = open_engine(profile)
    assert engine.write(engine.read(to_bytes(dataset)), SUBJECT, path) is None
    return pydicom.dcmread(path)


def test_what_is_nobodys_stays(tmp_path):
    dataset = ct_slice()
    dataset.PatientName, dataset.PatientID, dataset.OperatorsName = "Hand^White", "AB123", "Li"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "WHITE"]
    dataset.BodyPartExamined = "HAND"
    dataset.SeriesDescription = "AB123 Liver, hand-chest WHITE 5mm B30f"
    dataset.StudyDescription = "HAND"
    dataset.ProtocolName = "Li Liver"
    out = written(tmp_path / "a", dataset)
    assert out.BodyPartExamined == "HAND" and out.ImageType == ["ORIGINAL", "PRIMARY", "AXIAL", "OTHER"]
    assert (out.SeriesDescription, out.StudyDescription, out.ProtocolName) == ("Liver chest 5mm B30f", "", "Liver")


def coded(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def test_a_code_of_the_standard_says_what_it_is_whoever_is_called_so(tmp_path):
    dataset = ct_slice()
    dataset.PatientName, dataset.PatientID = "Liver^Neoplasm", "10200004"
    dataset.AnatomicRegionSequence = Sequence([coded("10200004", "SCT", "Liver"), coded("T-62000", "SRT", "liver ")])
    dataset.AnatomicRegionSequence += [coded("10200004", "SCT", "Liver of Chest"), coded("77", "99HOSP", "Liver")]
    dataset.AnatomicRegionSequence += [coded("10200004", "99HOSP", "Chest")]
    out = written(tmp_path / "a", dataset)
    said = [(i.CodeValue, i.CodingSchemeDesignator, i.CodeMeaning) for i in out.AnatomicRegionSequence]
    assert said == [
        ("10200004", "SCT", "Liver"), ("T-62000", "SRT", "liver"), ("10200004", "SCT", "Chest"),
        ("REMOVED", "99REMOVED", "removed"), ("REMOVED", "99REMOVED", "Chest"),
    ]  # fmt: skip


def test_what_goes_with_images_keeps_its_words_less_the_name(tmp_path):
    dataset, roi, segment, text = ct_slice(), Dataset(), Dataset(), Dataset()
    dataset.PatientName, dataset.OperatorsName = "Heart^X", "Lung^Y"
    roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = 1, "Heart GTV", "MANUAL"
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmName = 1, "LUNG", "heart nodule"
    text.ValueType, text.TextValue, text.PersonName = "TEXT", "HEART", "Kidney^Z"
    dataset.StructureSetROISequence, dataset.SegmentSequence = Sequence([roi]), Sequence([segment])
    dataset.ContentSequence, dataset.SeriesDescription = Sequence([text]), "KIDNEY ABDOMEN"
    out = written(tmp_path / "a", dataset)
    assert out.StructureSetROISequence[0].ROIName == "GTV"
    assert (out.SegmentSequence[0].SegmentLabel, out.SegmentSequence[0].SegmentAlgorithmName) == (
        "SEGMENT 1",
        "nodule",
    )
    assert out.ContentSequence[0].TextValue == "ANONYMIZED" and out.SeriesDescription == "ABDOMEN"


@pytest.mark.parametrize("name", ["Bo^X", "Bö^X", "X^Bo", "An Bo"])
@pytest.mark.parametrize(("comment", "stands"), [("seen by BO", False), ("bo-4", False), ("a box of van", True)])
def test_a_text_kept_as_it_stands_with_a_name_of_two_letters_is_held(tmp_path, name, comment, stands):
    engine, dataset = careless_engine(), ct_slice()
    dataset.PatientName, dataset.PatientComments = name, comment
    refused = engine.write(engine.read(to_bytes(dataset)), SUBJECT, tmp_path / "a")
    assert refused is (None if stands else Exclusion.RESIDUAL_IDENTIFIER)


@pytest.mark.parametrize("missing", [True, False])
def test_a_name_in_another_character_set_than_its_file_says_is_still_one(tmp_path, missing):
    dataset = ct_slice()
    if missing:
        del dataset.SpecificCharacterSet
    raw = "Händ^Mörk ".encode()
    dataset[0x00100010] = raw_element(0x00100010, "PN", raw + b" " * (len(raw) % 2))
    dataset.SeriesDescription = "HAND CHEST"
    assert written(tmp_path / "a", dataset).SeriesDescription == "CHEST"


def test_one_patients_names_are_another_ones_terms(tmp_path):
    engine = open_engine("eucaim")
    for number, (name, left) in enumerate([("Hand^X", "FOOT"), ("Foot^X", "HAND"), ("Hand^X", "FOOT")]):
        dataset = ct_slice()
        dataset.PatientName, dataset.PatientID, dataset.SeriesDescription = name, name, "HAND FOOT"
        subject = Subject(KEYED, KEYED.patient(name), 100)
        assert engine.write(engine.read(to_bytes(dataset)), subject, tmp_path / str(number)) is None
        assert pydicom.dcmread(tmp_path / str(number)).SeriesDescription == left


def test_explain_tells_what_becomes_of_a_term_that_is_a_name(tmp_path):
    dataset = ct_slice()
    dataset.PatientName, dataset.SeriesDescription, dataset.BodyPartExamined = "Hand^X", "HAND", "HAND"
    dataset.AnatomicRegionSequence = Sequence([coded("85562004", "SCT", "Hand"), coded("1", "99HOSP", "Hand")])
    (tmp_path / "a").write_bytes(to_bytes(dataset))
    _verdict, lines = explain_file(tmp_path / "a", load_profile("eucaim"))
    told = {(line.tag, line.action) for line in lines}
    assert {("(0008,103E)", "empty"), ("(0018,0015)", "clean")} <= told
    assert [line.action for line in lines if line.tag == "(0008,0104)" and line.depth == 1] == ["meaning", "meaning"]


def test_more_names_than_anybody_has_hold_the_file(tmp_path):
    dataset = ct_slice()
    for letter, tag in (("A", 0x00081048), ("B", 0x00081070)):
        names = "\\".join(f"{letter}{number:05d}" for number in range(6_000))
        dataset[tag] = raw_element(tag, "PN", f"{names} ".encode())
    engine = open_engine("eucaim")
    assert engine.write(engine.read(to_bytes(dataset)), SUBJECT, tmp_path / "a") is Exclusion.TOO_LARGE
    assert not (tmp_path / "a").exists()

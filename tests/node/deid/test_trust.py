"""Whoever is called what: nothing of it in any text of the output, and nobody else loses a word by it.

Names are drawn from the lists of terms themselves and numbers from the shapes of technical marks: in every part of a
name, in ideographic and phonetic groups, at any depth, with diacritics, hyphens, ligatures and in any letter case.
"""

import random
import re
import unicodedata
from datetime import date

import pydicom
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mediator.deid.identifiers import PARTICLES
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.values import Subject, decide
from node.deid.engine import open_engine
from node.deid.ordinals import is_standing_in
from node.deid.profiles import load_profile, standard
from node.deid.source_folder import walk
from node.deid.verify import verify_folders
from tests.node.deid.test_names import ELEMENTS, NUMBERS, PEOPLE, TAG_OF, join, say_so, stands, texts_of, type_it
from tests.sim.dicom import ct_slice, raw_element, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")
PROFILES = ["eucaim", "eucaim-v5", "pseudonymise", "basic"]
NOBODYS = {"UNKNOWN", "NONE", "REMOVED", "OTHER", "NULL"}
LISTED = {word.upper() for values in standard().listed.values() for value in values for word in value.split()}
DEFINED = {word for terms in standard().defined.values() for term in terms for word in term.replace("_", " ").split()}
WORDS = sorted(word for word in standard().terms | LISTED | DEFINED if word.isalpha() and word.isascii())
WORDS = [word for word in WORDS if len(word) >= 2 and word not in NOBODYS]
MARKS = [
    "B30F",
    "H31S",
    "BR40D",
    "FC08",
    "5MM",
    "15S",
    "120KV",
    "B800",
    "T12",
    "L5",
    "T2W",
    "3D",
    "AB123",
    "P017",
    "N45",
]
# a vowel as it may be written in a name, by what it is typed as elsewhere
ACCENTED = {"A": "ÄÁÂÅ", "O": "ÖÓÔØ", "U": "ÜÚÛ", "E": "ÉÈÊ", "I": "ÍÏ", "C": "ÇČ", "S": "ŠŚ", "N": "ÑŃ", "Z": "ŽŻ"}
LIGATURES = {"AE": "Æ", "OE": "Œ"}


@st.composite
def accented(draw, word):
    """The word with one of its letters as another alphabet of Europe has it."""
    for pair, ligature in LIGATURES.items():
        if pair in word and draw(st.booleans()):
            return word.replace(pair, ligature, 1)
    places = [at for at, letter in enumerate(word) if letter in ACCENTED]
    if not places:
        return word
    at = draw(st.sampled_from(places))
    letter = draw(st.sampled_from(ACCENTED[word[at]]))
    return unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), f"{word[:at]}{letter}{word[at + 1 :]}")


@st.composite
def called(draw):
    """(what a file says somebody is called, how it is typed elsewhere)."""
    word = draw(st.sampled_from(WORDS))
    written = draw(st.one_of(st.just(word), accented(word)))
    written = draw(st.sampled_from([str.title, str.upper, str.lower]))(written)
    match draw(st.sampled_from(["alone", "part", "hyphen", "ideographic", "phonetic", "space"])):
        case "part":
            parts = ["Zyx", "Wvu", "Qq", "", ""]
            parts[draw(st.integers(0, 4))] = written
            name = "^".join(parts)
        case "hyphen":
            name = draw(st.sampled_from([f"Zyx-{written}^Q", f"{written}-Zyx^Q"]))
        case "ideographic":
            name = f"Yamada^Tarou={written}^太郎"
        case "phonetic":
            name = f"Yamada^Tarou=山田^太郎=やまだ^{written}"
        case "space":
            name = f"Zyx {written}^Q"
        case _:
            name = written
    return name, draw(st.sampled_from([str.upper, str.lower, str.title, str.swapcase]))(word)


def ours(found):
    return [(tag, text) for tag, text in found if not is_standing_in(tag, text)]


def converted(folder, profile, dataset, patient="1", syntax=ExplicitVRLittleEndian):
    engine = open_engine(profile)
    with config.disable_value_validation():
        content = to_bytes(dataset, syntax)
        subject = Subject(KEYED, KEYED.patient(patient), 100, "alpha")
        assert engine.write(engine.read(content), subject, folder / "out.dcm") is None
        (folder / "in").mkdir()
        (folder / "in" / "a").write_bytes(content)
        return pydicom.dcmread(folder / "out.dcm")


def file_of(profile, said, typed, keyword, seed):
    """A file that says somewhere that somebody is called so, and has it typed in texts of every kind."""
    chance = random.Random(seed)
    tags = texts_of(profile)
    dataset = ct_slice()
    dataset.SpecificCharacterSet, dataset.PatientName, dataset.PatientID = "ISO_IR 192", "Zyx^Wvu", "7700123"
    type_it(dataset, chance.sample(tags, 25), typed, chance)
    own = [tag for keyword, tag in TAG_OF.items() if keyword in standard().listed and tag in tags]
    type_it(dataset, own, typed, chance)
    for tag in chance.sample(tags, 8):  # alone, and in every other attribute's list
        value = (typed.upper() if ELEMENTS[tag].vrs == ("CS",) else typed).encode()
        join(dataset, _one(tag, value + b" " * (len(value) % 2)))
    where = say_so(dataset, keyword, said, chance)
    explicit = where == "private" or chance.random() < 0.6
    return dataset, ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian


def _one(tag, value):
    item = pydicom.Dataset()
    item[tag] = raw_element(tag, ELEMENTS[tag].vrs[0], value)
    return item


@settings(max_examples=80, deadline=None)
@given(who=called(), keyword=st.sampled_from(PEOPLE), profile=st.sampled_from(PROFILES), seed=st.integers(0, 10**6))
def test_no_part_of_a_name_stands_in_any_text(tmp_path_factory, who, keyword, profile, seed):
    said, typed = who
    dataset, syntax = file_of(profile, said, typed, keyword, seed)
    out = converted(tmp_path_factory.mktemp("a"), profile, dataset, syntax=syntax)
    assert ours(stands(out, typed)) == []


@settings(max_examples=80, deadline=None)
@given(
    number=st.one_of(
        st.sampled_from(MARKS),
        st.from_regex(r"[A-Z]{1,2}[0-9]{2,3}[a-z]?", fullmatch=True),
        st.from_regex(r"[1-9][0-9]{2,7}", fullmatch=True),
    ),
    keyword=st.sampled_from([one for one in NUMBERS if one != "StudyID"]),
    profile=st.sampled_from(PROFILES),
    seed=st.integers(0, 10**6),
)
def test_no_number_of_a_marks_shape_stands_in_any_text(tmp_path_factory, number, keyword, profile, seed):
    typed = random.Random(seed).choice([number, number.lower(), number.upper()])
    dataset, syntax = file_of(profile, number, typed, keyword, seed)
    out = converted(tmp_path_factory.mktemp("a"), profile, dataset, syntax=syntax)
    assert ours(stands(out, typed)) == []


@settings(max_examples=60, deadline=None)
@given(word=st.sampled_from([one for one in WORDS if one in standard().terms]), profile=st.sampled_from(PROFILES[:3]))
def test_who_is_not_called_so_keeps_the_word(tmp_path_factory, word, profile):
    dataset = ct_slice()
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "Zyxw^Qqq", "7700123", "99887766"
    dataset.SeriesDescription = word
    out = converted(tmp_path_factory.mktemp("a"), profile, dataset)
    assert (out.SeriesDescription or "").split() == [word]


@settings(max_examples=60, deadline=None)
@given(word=st.sampled_from(WORDS), keyword=st.sampled_from(sorted(standard().defined)), data=st.data())
def test_the_standards_own_term_stays_whoever_is_called_so(tmp_path_factory, word, keyword, data):
    rule = load_profile("eucaim").rule(TAG_OF[keyword])
    term = data.draw(st.sampled_from(sorted(standard().defined[keyword])))
    dataset = ct_slice()
    dataset.PatientName = f"{term.title().replace('_', ' ')}^{word.title()}"
    dataset[TAG_OF[keyword]] = _one(TAG_OF[keyword], term.encode() + b" " * (len(term) % 2))[TAG_OF[keyword]]
    out = converted(tmp_path_factory.mktemp("a"), "eucaim", dataset)
    if rule.action.value in ("clean", "keep") and keyword not in ("SpecificCharacterSet",):
        assert str(out[TAG_OF[keyword]].value) == term


@settings(max_examples=40, deadline=None)
@given(who=called(), place=st.sampled_from(["SeriesDescription", "StudyDescription", "ProtocolName", "ImageType"]))
def test_verify_names_a_text_in_which_a_name_stands(tmp_path_factory, who, place):
    """What another tool left because it is a term."""
    said, typed = who
    # `van` in `van der Meer` is in many a sentence
    assume(typed.lower() not in PARTICLES or said.casefold() == typed.casefold())
    folder = tmp_path_factory.mktemp("a")
    dataset = ct_slice()
    dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", said
    out = converted(folder, "eucaim", dataset)
    (folder / "out").mkdir()
    (folder / "out.dcm").rename(folder / "out" / "a.dcm")
    table = load_profile("eucaim")
    assert verify_folders(str(folder / "in"), str(folder / "out"), table, walk).findings == []
    own = place == "ImageType" and typed.upper() in standard().defined["ImageType"]
    value = typed.upper() if place == "ImageType" else f"CT {typed} 5mm"
    with config.disable_value_validation():
        setattr(out, place, value)
        out.save_as(folder / "out" / "a.dcm")
    found = verify_folders(str(folder / "in"), str(folder / "out"), table, walk).findings
    assert [one.where for one in found] == (
        [] if own else [f"({TAG_OF[place]:08X}"[:5] + f",{TAG_OF[place] & 0xFFFF:04X})"]
    )


def written_as_date(day, chance):
    """A day as people type it, whole, in parts, and made to look like measures."""
    forms = ["%d.%m.%Y", "%d.%m.%y", "%Y%m%d", "%Y-%m-%d", "%m/%d/%Y", "%d%m%y", "%d %m %Y", "%d.%m", "%Y", "%d_%m_%Y"]
    forms += ["%dmm%mmm%y", "%d.%mmm", "%d.%mT", "%mmm", "b%Y", "%Yms", "%Ymm", "T%d%m", "T%d.%m"]
    text = day.strftime(chance.choice(forms))
    return text.replace(".0", ".") if chance.random() < 0.2 else text


@settings(deadline=None)
@given(st.lists(st.dates(date(1900, 1, 1), date(2049, 12, 31)), min_size=1, max_size=3), st.randoms())
def test_nothing_that_reads_as_a_date_stays(days, chance):
    text = " ".join(f"CT {written_as_date(day, chance)}" for day in days)
    rule = load_profile("eucaim").rule(TAG_OF["SeriesDescription"])
    subject = Subject(KEYED, KEYED.patient("1"), 100, "alpha")
    kept = " ".join(decide(rule, "LO", (text,), load_profile("eucaim"), subject).values)
    for word in kept.split():
        # two digits and a unit are a measure; b2000 a diffusion weighting
        assert word in ("CT", "b2000") or re.fullmatch(r"[1-9]\d(\.\d)?(mm|T)", word), (text, kept)

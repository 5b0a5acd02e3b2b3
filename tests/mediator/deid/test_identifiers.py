"""A patient's own names and numbers are no terms, however they are spelled; everybody else's words stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.deid.identifiers import Identifier, Own, fold
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ElementAction, Rule
from mediator.deid.values import EMPTY, Subject, decide
from node.deid.profiles import load_profile, standard

KEYED = Pseudonyms(bytes(32), "liver")
TABLE = load_profile("eucaim")
NOBODY = {"UNKNOWN", "NONE", "REMOVED"}
WORDS = sorted(term for term in TABLE.terms - NOBODY if term.isalpha() and len(term) >= 2)
TURNING = {"NO", "NOT", "NON", "NONE", "WITHOUT", "WO", "OR", "LESS", "MINUS", "EXCEPT", "PREVIOUS", "PRIOR"}
TURNING |= {"BEFORE", "AFTER", "POST", "PRE"}
BODY_PARTS = sorted(standard().defined["BodyPartExamined"])
TAG_OF = {element.keyword: tag for tag, element in standard().elements.items()}


def own(*named: tuple[str, str] | str) -> Own:
    return Own(Identifier("name", one) if isinstance(one, str) else Identifier(*one) for one in named)


def cleaned(text: str, whose: Own, vr: str = "LO", rule: Rule | None = None) -> tuple[str, ...]:
    subject = Subject(KEYED, KEYED.patient("1"), 10, own=whose)
    written = decide(rule or Rule(ElementAction.CLEAN, "test", (vr,)), vr, tuple(text.split("\\")), TABLE, subject)
    return written.values


def test_nobody_has_no_names_and_no_names_are_nobodys():
    assert not Own() and not Own().is_word("HAND") and Own().without(["HAND"]) == ["HAND"]
    for nobody in ("Anonymous", "UNKNOWN", "none^", "", " ", "^^^^", "=", "REMOVED"):
        assert cleaned("UNKNOWN HAND NONE", own(nobody)) == ("UNKNOWN HAND NONE",)


@given(name=st.sampled_from(WORDS), others=st.lists(st.sampled_from(WORDS), max_size=5), at=st.integers(0, 5))
@pytest.mark.parametrize("spell", [str.upper, str.lower, str.title, str.swapcase])
def test_of_a_description_all_words_stay_but_the_name(spell, name, others, at):
    whose = own(f"{name.title()}^Zzyzx")
    words = [*others[:at], spell(name), *others[at:]]
    holds = [word for word in words if word.upper() == name or (len(name) >= 4 and name in word.upper())]
    (said, *_) = cleaned(" ".join(words), whose) or ("",)
    assert not whose.stand_in(said.split())
    rest = [word for word in words if word not in holds]
    if TURNING & {word.upper() for word in holds} and holds:
        assert said == ""
    elif not whose.stand_in(rest):
        assert said.split() == " ".join(rest)[:64].strip().split()


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("Li^Wei", "LIVER LI HAND", "LIVER HAND"),
        ("Händ", "HAND FOOT", "FOOT"),
        ("Boene^X", "BONE FOOT", "FOOT"),
        ("Böne^X", "BONE BOENE FOOT", "FOOT"),
        ("Bo\u0308ne^X", "BONE FOOT", "FOOT"),
        ("Ræck", "FOOT", "FOOT"),
        ("Weiß-Black^Per", "BLACK PER FOOT", "FOOT"),
        ("von der Head^Al", "HEAD AL FOOT", "FOOT"),
        ("Al-Foot^X", "AL FOOT HAND", "HAND"),
        ("Whitehead^X", "WHITE HEAD FOOT", "FOOT"),
        ("Whitehead^X", "WHITE FOOT HEAD", "WHITE FOOT HEAD"),
        ("White Head^X", "HEAD-WHITE FOOT", "FOOT"),
        ("Head^Neck", "HEADNECK FOOT", "FOOT"),
        ("Rain^X", "BRAIN FOOT", "FOOT"),
        ("Tran^X", "TRANSVERSE TRA FOOT", "TRA FOOT"),
        ("X^Y^^Dr^SR", "SR FOOT", "FOOT"),
        ("Yamada^Tarou=山田^太郎=ハンド^Hand", "HAND FOOT", "FOOT"),
        ("O'Hand^Y", "HAND FOOT OHAND", "FOOT"),
        ("White2^X", "WHITE FOOT", "FOOT"),
        ("Wu^Bo", "WU1 Bo2 wu12 bo1a T1 axial", "T1 axial"),
        ("Li^Ming", "LiGTV GTVLi Li2 li_gtv liver_li LI. 2li", "gtv liver"),
        ("2Wu^X", "WU1 FOOT", "FOOT"),
        ("Mm^X", "5mm 5.5mm FOOT", "FOOT"),
        ("Fc^X", "FC08 F08 FOOT", "FOOT"),
    ],
)
def test_the_family_of_names(name, text, left):
    assert cleaned(text, own(name)) == (left,)
    assert cleaned(text.lower(), own(name.upper())) == (left.lower(),)


@pytest.mark.parametrize(
    ("kind", "number", "text", "left"),
    [
        ("number", "AB123", "CT CHEST AB123 B30f", "CT CHEST B30f"),
        ("number", "AB-123", "CT AB123 B30f", "CT B30f"),
        ("number", "N45", "N45 N45a T2 CT", "T2 CT"),
        ("number", "P017", "p017 P01 CT", "CT"),
        ("number", "White 1961", "WHITE CT", "CT"),
        ("number", "PID-White", "WHITE CT", "CT"),
        ("number", "LUNG-012", "LUNG CT", "LUNG CT"),
        ("number", "Breast_MRI_001", "BREAST MRI T1", "BREAST MRI T1"),
        ("number", "T2", "T2 T2w CT", "T2w CT"),
        ("number", "0", "T2 CT", "T2 CT"),
        ("number", "33", "T33 B33f 33mm 33 33s CT", "B33f 33mm 33s CT"),
        ("number", "123", "T123 B123f 123 T12 CT", "T12 CT"),
        ("number", "AB-10", "B10f A10 AB10 CT", "B10f CT"),
        ("order", "CTHEAD", "CT HEAD", "CT HEAD"),
        ("order", "LUNG", "CT LUNG", "CT LUNG"),
        ("order", "B31", "CT B31f B30f", "CT B30f"),
    ],
)
def test_the_family_of_numbers(kind, number, text, left):
    assert cleaned(text, own((kind, number))) == (left,)


@given(
    name=st.sampled_from(["Wu", "LI", "bo", "Fc", "Ng", "Tan", "Hand"]),
    before=st.sampled_from(["", "1", "22", "b3", "0"]),
    after=st.sampled_from(["", "1", "02", "1a", "999", "4f"]),
)
def test_a_name_between_digits_is_still_one(name, before, after):
    whose, typed = own(f"{name}^Zzyzx"), f"{before}{name}{after}"
    assert whose.is_word(typed) and whose.name(f"seen by {typed.upper()}.")
    assert cleaned(f"CT {typed} FOOT", whose) == ("CT FOOT",)


def test_a_pseudonym_of_ours_holds_a_short_name_by_chance():
    hexadecimal = "0ed1fa2" + "0" * 25
    assert not own("Ed^Fa").name(hexadecimal) and not own("Ed^Fa").name(f"SITE{hexadecimal}")
    assert own("Ed^Fa").name(f"ed4SITE{hexadecimal}")


def test_a_name_that_turns_a_meaning_round_takes_the_text_with_it():
    assert cleaned("CT NO CONTRAST", own("No^X")) == ()
    assert cleaned("CT NO CONTRAST", own("Hand^X")) == ("CT NO CONTRAST",)


@pytest.mark.parametrize("part", BODY_PARTS)
def test_body_part_examined_says_the_standards_term_and_a_description_does_not(part):
    whose, tag = own(f"{part}^X"), TAG_OF["BodyPartExamined"]
    assert cleaned(part, whose, "CS", TABLE.rule(tag)) == (part,)
    assert cleaned(part, whose) == ()
    assert cleaned(f"{part} CT", whose, rule=TABLE.rule(TAG_OF["SeriesDescription"])) == (
        "" if whose.is_word("CT") else "CT",
    )


@pytest.mark.parametrize("keyword", sorted(standard().defined))
def test_every_attributes_own_terms_stay_and_are_code_strings(keyword):
    tag, terms = TAG_OF[keyword], standard().defined[keyword]
    (vr,) = standard().elements[tag].vrs
    assert vr in ("CS", "LO", "SH") and all(term == term.upper() and len(term) <= 16 for term in terms)
    rule = Rule(ElementAction.CLEAN, "test", (vr,), None, "", terms)
    for term in terms:
        assert cleaned(term, own(f"{term}^{term[:4]}"), vr, rule) == (term,)
    if vr != "CS":
        return
    surname = "DIXON" if "WHITE" in terms else "WHITE"
    whose = own("White^Dixon", "Jansen")
    assert cleaned("\\".join([*sorted(terms)[:1], surname]), whose, "CS", rule) == (sorted(terms)[0], "OTHER")
    assert cleaned(surname, whose, "CS", rule) == ()


def test_a_label_and_a_code_that_are_somebodys_are_keyed_or_the_constant():
    label, code = Rule(ElementAction.LABEL, "test", ("CS",)), Rule(ElementAction.CODE, "test", ("SH",), 1, "REMOVED")
    assert cleaned("HEART", own("Hand"), "CS", label) == ("HEART",)
    assert cleaned("HAND", own("Hand"), "CS", label) == (KEYED.label("HAND"),)
    assert cleaned("113100", own(("number", "113100")), "SH", code) == ("REMOVED",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("de patient van der Meer in een BOX", False), ("BO was here", True), ("seen by mrs HÄND", True),
        ("second-hand", True), ("vanderhand", True), ("van der", False), ("", False),
        ("0123456789abcdef0123456789abcdef", False), ("bo2 was here", True), ("seen by 2BO", True),
        ("van4 der2", False), ("A2BO4C7DEFGHIJ2K", False), ("ward4567", True),
    ],
)  # fmt: skip
def test_a_sentence_nobody_cleaned_may_hold_a_particle_and_no_name(text, named):
    assert own("van der Hand^Bo", ("number", "4567")).name(text) is named


@pytest.mark.parametrize(
    ("name", "named"),
    [("Le^Van", True), ("Do^Thi Le", True), ("Le Van", True), ("van der Lee^Jan", False), ("Meer^Jan^^van^MR", False)],
)
def test_a_particle_that_is_all_of_a_name_is_one(name, named):
    assert own(name).name("foto do van le mr") is named


@given(st.text(max_size=40), st.text(max_size=60))
def test_nothing_of_a_name_is_left_whatever_it_is(name, text):
    whose = own(name, ("number", name))
    for value in cleaned(text, whose):
        assert not whose.name(value, cleaned=True)
        for word in value.split():
            assert len(word) < 2 or fold(word) not in {fold(part) for part in name.replace("=", "^").split("^")}


def test_what_is_not_there_is_not_made():
    assert cleaned("Jansen", own("Jansen")) == EMPTY.values

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ElementAction, Rule
from mediator.deid.values import EMPTY, Subject, Written, decide
from node.deid.profiles import load_profile

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("1"), 10)
TABLE = load_profile("eucaim")


def value(action: ElementAction, vr: str, *values: str, vm_max: int | None = None) -> Written | None:
    return decide(Rule(action, "test", (vr,), vm_max), vr, values, TABLE, SUBJECT)


@given(st.lists(st.text(max_size=30), max_size=4), st.sampled_from(["LO", "PN", "CS", "UI", "DA", "UT", "DS"]))
def test_what_is_removed_emptied_or_replaced_never_depends_on_the_value(values, vr):
    assert value(ElementAction.REMOVE, vr, *values) is None
    assert value(ElementAction.EMPTY, vr, *values) == EMPTY
    assert value(ElementAction.DUMMY, vr, *values) == value(ElementAction.DUMMY, vr, "anything")
    assert value(ElementAction.PSEUDONYM, vr, *values) == value(ElementAction.PSEUDONYM, vr, "anything")


@given(st.text(max_size=70))
def test_cleaned_text_holds_only_listed_words_and_short_marks(text):
    written = value(ElementAction.CLEAN, "LO", text)
    for word in " ".join(written.values).split():
        short = len(word) <= 6 and (any(letter.isalpha() for letter in word) or "." in word)
        assert word.upper() in TABLE.terms or short


def test_descriptions_keep_the_vocabulary_and_lose_the_name():
    assert value(ElementAction.CLEAN, "LO", "Chest Jansen 5mm B30f 12.03.1965").values == ("Chest 5mm B30f",)
    assert value(ElementAction.CLEAN, "LO", "Jansen, 12 03 65") == EMPTY
    assert value(ElementAction.CLEAN, "LO", "GE MEDICAL SYSTEMS").values == ("GE MEDICAL SYSTEMS",)


def test_an_initial_an_age_and_a_sex_are_no_mark_where_no_scanner_has_such_a_kernel():
    """`J65m` is a person; `B30f` and `B70f` are kernels, and `65s` is how long was waited after the contrast."""
    text = value(ElementAction.CLEAN, "LO", "CT J65m T65f D65m B30f H31s J30s 65s 70s").values
    assert text == ("CT B30f H31s J30s 65s 70s",)
    for initial in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        for age in range(10, 100):
            assert value(ElementAction.CLEAN, "LO", f"{initial}{age}m") == EMPTY, (initial, age)
        for age in (*range(51, 60), *range(61, 70)):
            assert value(ElementAction.CLEAN, "LO", f"{initial}{age}f") == EMPTY, (initial, age)


@pytest.mark.parametrize("size", ["1.0", "5.0", "10.0", "0.6", "0.75"])
def test_a_slices_thickness_without_its_unit_stays(size):
    assert value(ElementAction.CLEAN, "LO", f"Thorax {size} B70f").values == (f"Thorax {size} B70f",)


@given(st.dates(), st.sampled_from(["%d.%m", "%m.%d", "%d.%m.", "%m.%Y", "%d.%m.%y", "%d.%m.%Y", "%Y.%m", "%y.%m"]))
@example(date(2025, 1, 25), "%m.%d")
def test_no_date_is_taken_for_a_thickness(day, written):
    text = day.strftime(written)
    for typed in (text, text.lstrip("0"), text.replace(".0", ".")):
        assert value(ElementAction.CLEAN, "LO", f"Thorax {typed}").values == ("Thorax",)


def test_a_word_that_turns_the_meaning_round_stays_with_what_it_speaks_of():
    assert value(ElementAction.CLEAN, "LO", "MRI abdomen without contrast").values == ("MRI abdomen without contrast",)
    assert value(ElementAction.CLEAN, "LO", "CT WO contrast, Jansen").values == ("CT WO contrast",)


def test_the_meaning_of_a_standard_code_stays_whole():
    assert value(ElementAction.CLEAN, "LO", "Neoplasm, Primary").values == ("Neoplasm, Primary",)


def test_a_code_string_is_a_known_term_or_other():
    assert value(ElementAction.CLEAN, "CS", "ORIGINAL", "PRIMARY", "JANSEN").values == ("ORIGINAL", "PRIMARY", "OTHER")
    assert value(ElementAction.CLEAN, "CS", "HELICAL MODE").values == ("HELICAL MODE",)
    assert value(ElementAction.CLEAN, "CS", "JANSEN") == EMPTY


def test_a_number_with_words_in_it_is_no_number():
    assert value(ElementAction.KEEP, "DS", "1.5", "-2e3").values == ("1.5", "-2e3")
    assert value(ElementAction.KEEP, "DS", "1.5", "JANSEN") == EMPTY
    assert value(ElementAction.KEEP, "IS", "12 JANSEN") == EMPTY
    assert value(ElementAction.KEEP, "TM", "JANSEN") == EMPTY


def test_more_values_than_the_standard_allows_are_not_kept():
    assert value(ElementAction.KEEP, "DS", "1", "2", vm_max=1) == EMPTY


def test_another_vr_than_the_standards_is_not_kept():
    assert decide(Rule(ElementAction.KEEP, "test", ("DS",)), "LO", ("1.5",), TABLE, SUBJECT) == EMPTY


def test_standard_uids_stay_and_others_are_replaced_alike():
    ct = "1.2.840.10008.5.1.4.1.1.2"
    written = value(ElementAction.REPLACE_UID, "UI", ct, "1.2.3", "1.2.3")
    assert written.values == (ct, KEYED.uid("1.2.3"), KEYED.uid("1.2.3"))
    forged = "1.2.840.10008.9999.19650312"  # the standard's root, but nothing the standard assigned
    assert value(ElementAction.REPLACE_UID, "UI", forged).values == (KEYED.uid(forged),)


def test_one_bad_date_empties_the_list_instead_of_pairing_the_rest_wrongly():
    assert value(ElementAction.SHIFT_DATE, "DA", "20200111", "20200112").values == ("20200101", "20200102")
    assert value(ElementAction.SHIFT_DATE, "DA", "20200111", "soon") == EMPTY


@pytest.mark.parametrize("vr", ["LO", "LT", "UT", "PN"])
def test_free_text_a_site_keeps_on_request_is_not_pardoned_by_the_residual_check(vr):
    assert value(ElementAction.KEEP, vr, "Jansen was here").trusted is False


def test_long_text_is_cleaned_by_the_list_of_terms_when_a_profile_names_it():
    text = "Chest CT of mrs Jansen,\r\nroom 12, liver lesion 5mm"
    assert value(ElementAction.CLEAN, "LT", text).values == ("Chest CT liver lesion 5mm",)
    assert value(ElementAction.CLEAN, "UT", "Jansen") == EMPTY


def test_codes_of_the_standard_stay_and_a_hospitals_own_become_the_constant():
    code = Rule(ElementAction.CODE, "test", ("SH",), 1, "REMOVED")
    meaning = Rule(ElementAction.MEANING, "test", ("LO",), 1, "removed")
    assert decide(code, "SH", ("10200004",), TABLE, SUBJECT).values == ("10200004",)
    assert decide(code, "SH", ("CT-JANSEN",), TABLE, SUBJECT).values == ("REMOVED",)
    assert decide(meaning, "LO", ("Liver",), TABLE, SUBJECT).values == ("Liver",)
    assert decide(meaning, "LO", ("Chest of Jansen",), TABLE, SUBJECT).values == ("Chest",)
    assert decide(meaning, "LO", ("Jansen",), TABLE, SUBJECT).values == ("removed",)


def test_the_site_is_named_or_hashed_and_the_patient_prefixed():
    subject = Subject(KEYED, KEYED.patient("1"), 10, "alpha")
    assert decide(Rule(ElementAction.SITE, "test", ("LO",)), "LO", ("Hartog",), TABLE, subject).values == ("alpha",)
    (hashed,) = decide(Rule(ElementAction.SITE_HASH, "test", ("LO",)), "LO", ("Hartog",), TABLE, subject).values
    assert hashed == KEYED.site("alpha") and len(hashed) == 16
    prefixed = Rule(ElementAction.PSEUDONYM, "test", ("PN",), 1, "EUCAIM-")
    assert decide(prefixed, "PN", ("Hartog",), TABLE, subject).values == (f"EUCAIM-{subject.patient}^Anonymous",)

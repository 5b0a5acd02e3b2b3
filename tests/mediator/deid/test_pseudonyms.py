import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator import canonical
from mediator.deid.pseudonyms import MAX_SHIFT_DAYS, Pseudonyms
from mediator.traceability import key_id, retirement, signing_key

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def test_the_same_patient_has_the_same_pseudonym_and_another_key_or_project_another():
    ours = Pseudonyms(KEY, "liver")
    assert ours.patient("12345678") == Pseudonyms(KEY, "liver").patient("12345678")
    assert ours.patient("12345678") != Pseudonyms(OTHER, "liver").patient("12345678")
    assert ours.patient("12345678") != Pseudonyms(KEY, "lung").patient("12345678")
    assert ours.uid("1.2.3") != Pseudonyms(KEY, "lung").uid("1.2.3")


def test_known_answers_stay_what_they_are():
    """A change here breaks every later delivery of the same patients: it needs a new engine version."""
    ours = Pseudonyms(KEY, "liver")
    assert ours.patient("12345678", "HOSP") == "655b9a597d245e1b3faa697b3bc93c5a"
    assert ours.uid("1.2.840.1") == "2.25.96514688286308933464188272250877748760"
    assert ours.shift_days("12345678", "HOSP") == 3437


def test_blanks_and_case_are_typing_but_issuer_and_leading_zeros_are_not():
    ours = Pseudonyms(KEY, "liver")
    assert ours.patient(" ab12 ", "hosp ") == ours.patient("AB12", "HOSP")
    assert ours.patient("0012") != ours.patient("12")
    assert ours.patient("12", "A") != ours.patient("12", "B")
    assert ours.patient("2", "A1") != ours.patient("12", "A")


def test_one_identifier_gives_unrelated_values_for_each_use():
    ours = Pseudonyms(KEY, "liver")
    assert len({ours.patient("1.2.3"), ours.study("1.2.3"), ours.uid("1.2.3"), ours.accession("1.2.3")}) == 4


@given(st.text(max_size=80), st.text(max_size=20))
def test_values_fit_their_vr(identifier, issuer):
    ours = Pseudonyms(KEY, "liver")
    assert re.fullmatch(r"[0-9a-f]{32}", ours.patient(identifier, issuer))
    assert re.fullmatch(r"2\.25\.[1-9][0-9]*", ours.uid(identifier)) and len(ours.uid(identifier)) <= 44
    assert re.fullmatch(r"[A-Z2-7]{16}", ours.accession(identifier))
    assert 1 <= ours.shift_days(identifier, issuer) <= MAX_SHIFT_DAYS
    assert 0 <= ours.fraction(identifier) < 1


def test_a_short_key_is_refused_and_no_key_is_printed():
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonyms(b"short", "liver")
    assert KEY.hex() not in repr(Pseudonyms(KEY, "liver"))


def test_stage_1_is_the_hospitals_own_and_stage_2_a_projects_at_a_site():
    local = Pseudonyms.local(KEY, "alpha")
    assert local.patient("1") == Pseudonyms.local(KEY, "alpha").patient("1")
    hashes = [
        local.patient("1"),
        Pseudonyms.local(KEY, "beta").patient("1"),
        Pseudonyms.local(OTHER, "alpha").patient("1"),
        Pseudonyms(KEY, "alpha").patient("1"),
        Pseudonyms(KEY, "liver", "alpha").patient("1"),
        Pseudonyms(KEY, "liver", "beta").patient("1"),
        Pseudonyms(KEY, "lung", "alpha").patient("1"),
    ]
    assert len(set(hashes)) == len(hashes)
    second = Pseudonyms(KEY, "liver", "alpha")
    assert second.patient(local.patient("1"), "alpha") != second.patient(local.patient("1"), "beta")


def test_instances_without_a_patient_id_share_nothing():
    ours = Pseudonyms(KEY, "liver")
    assert ours.nobody("1.2.3") != ours.nobody("1.2.4") and len(ours.nobody("")) == 32


def test_a_key_signs_its_own_end_and_its_id_tells_nothing_of_it():
    line = json.loads(retirement(KEY, "2026-01-01T00:00:00Z"))
    signature = bytes.fromhex(line.pop("signature"))
    assert signing_key(KEY).verify_key.verifies(signature, canonical.dumps(line))
    assert not signing_key(OTHER).verify_key.verifies(signature, canonical.dumps(line))
    assert line["key"] == key_id(KEY) != key_id(OTHER) and KEY.hex() not in json.dumps(line)

"""Gate 0 over several files: what a later one loses is searched for in the earlier ones, too."""

import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from node.deid.deidentify import Finished, Gate0, groups, suspects
from node.deid.stream import MemoryStream
from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.profiles import careless_engine


@pytest.fixture
def engine():
    return careless_engine()


def slices(**of_second):
    """Two slices of one study; the comment of the first quotes what only the second one names."""
    first, second = ct_slice(), ct_slice()
    first.PatientComments = "seen by VERMEULEN, feels well"
    second.SOPInstanceUID = "1.2.826.0.1.111.2"
    for name, value in of_second.items():
        setattr(second, name, value)
    return [to_bytes(first), to_bytes(second)]


def gate_for(engine):
    return Gate0(engine, Pseudonyms(bytes(32), "liver"), review=False)


def admit(gate, folder, content):
    folder.mkdir(exist_ok=True)
    return gate.begin(MemoryStream(content), folder, lambda identity: f"{identity.instance}.part")()


def admitted(engine, folder, contents):
    """(outcomes, what `suspects` says and then `again`)"""
    gate = gate_for(engine)
    outcomes = [admit(gate, folder, content) for content in contents]
    assert [one.reasons for one in outcomes] == [()] * len(contents)
    found = list(suspects([Finished(one.path, one.identity.keys, one.lost) for one in outcomes], engine))
    held = {place: gate.again(MemoryStream(contents[place]), lost, outcomes[place].path) for place, lost in found}
    return outcomes, held


def test_a_name_that_only_a_later_file_loses_holds_the_earlier_one(engine, tmp_path):
    _, held = admitted(engine, tmp_path, slices(OperatorsName="Vermeulen^Piet"))
    assert held == {0: Exclusion.RESIDUAL_IDENTIFIER}
    assert not list(tmp_path.glob("again-*"))


def test_a_short_name_convicts_as_a_whole_value_only(engine, tmp_path):
    contents = slices(OperatorsName="Bo")
    first = ct_slice()
    first.StationName = "BO"
    _, held = admitted(engine, tmp_path, [to_bytes(first), contents[1]])
    assert held == {0: Exclusion.RESIDUAL_IDENTIFIER}
    first.StationName, first.SOPInstanceUID = "BOX", "1.2.826.0.1.111.3"
    _, held = admitted(engine, tmp_path / "other", [to_bytes(first), contents[1]])
    assert held == {}


def test_another_patients_names_in_between_change_nothing(engine, tmp_path):
    first, second = slices(OperatorsName="Vermeulen^Piet")
    other = ct_slice()
    other.PatientID, other.StudyInstanceUID, other.SOPInstanceUID = "OTHER-77", "1.2.826.0.1.222.9", "1.2.826.0.1.9"
    other.OperatorsName = "feels"  # a word of the first patient's comment
    _, held = admitted(engine, tmp_path, [first, to_bytes(other), second])
    assert held == {0: Exclusion.RESIDUAL_IDENTIFIER}


def test_a_patient_who_comes_again_is_searched_for_what_was_lost_before(engine, tmp_path):
    first, second = slices(OperatorsName="Vermeulen^Piet")
    other = ct_slice()
    other.PatientID, other.StudyInstanceUID, other.SOPInstanceUID = "OTHER-77", "1.2.826.0.1.222.9", "1.2.826.0.1.9"
    gate = gate_for(engine)
    outcomes = [admit(gate, tmp_path, content) for content in (second, to_bytes(other), first)]
    assert [one.reasons for one in outcomes] == [(), (), (Exclusion.RESIDUAL_IDENTIFIER,)]


def test_a_match_inside_a_value_that_is_ours_is_chance(engine, tmp_path):
    first, _ = slices()
    study = admit(gate_for(engine), tmp_path, first).path.name[5:12]  # digits of the first file's pseudonymous UID
    contents = slices(OperatorsName=study)
    plain = ct_slice()
    outcomes, held = admitted(engine, tmp_path / "again", [to_bytes(plain), contents[1]])
    assert held == {0: None} and all(one.path.exists() for one in outcomes)


def test_files_belong_together_by_patient_or_study_directly_or_through_others():
    keys = [("p1", "s1"), ("p2", "s2"), (), ("p3", "s1"), ("p2", "s3"), ("p4", "s4"), ("p3", "s4")]
    assert groups(keys) == [[0, 3, 5, 6], [1, 4]]


def test_words_that_stand_in_the_name_of_a_file_under_way_convict_nobody(engine, tmp_path):
    """What it is called until it is finished is ours, and nobody ever sees it."""
    named = ct_slice()
    named.PatientComments, named.StudyDescription = "feels well", "first part, no 0042.part"
    outcome = gate_for(engine).begin(MemoryStream(to_bytes(named)), tmp_path, lambda _identity: "0042.part")()
    assert (outcome.reasons, outcome.path) == ((), tmp_path / "0042.part")


def test_a_person_may_look_where_there_is_one_and_nobody_is_asked_where_there_is_none(engine, tmp_path):
    odd = ct_slice()
    odd.PatientID, odd.ConversionType, odd.BurnedInAnnotation = "", "WSD", "YES"
    for review, place in ((True, "review"), (False, "refuse")):
        gate = Gate0(engine, Pseudonyms(bytes(32), "liver"), review=review)
        outcome = gate.begin(MemoryStream(to_bytes(odd)), tmp_path, lambda _identity: "1.part")()
        assert outcome.place == place and (outcome.path is None) == (place == "refuse")
        assert outcome.reasons == (Exclusion.PATIENT_ID_MISSING, Exclusion.SECONDARY_CAPTURE)
        assert outcome.identity.study and bool(outcome.identity.patient) == review

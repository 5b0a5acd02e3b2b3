"""What files lost, as bytes that somebody seals and opens again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.deid.identifiers import Identifier, Opaque
from mediator.errors import Malformed
from node.deid.outcome import Identity
from node.deid.pipeline import Survey, Trace, known_of, to_search
from node.deid.residue import Residue
from node.deid.traces import decode_lost, decode_trace, encode_lost, encode_trace

names = st.builds(Identifier, st.sampled_from(("name", "number", "order")), st.text(st.characters(), max_size=20))
lost = st.lists(st.binary(max_size=40) | names, max_size=8)


@given(lost)
def test_lost_values_come_back_and_equal_values_are_equal_bytes(values):
    raw = encode_lost(values)
    assert set(decode_lost(raw)) == set(values) and encode_lost(reversed([*values, *values])) == raw


@given(st.lists(st.integers(0, 1 << 40)), st.lists(st.text("0123456789abcdef.", max_size=40)), lost)
def test_a_trace_comes_back(numbers, keys, values):
    back = decode_trace(encode_trace(Trace(tuple(numbers), tuple(keys), tuple(values))))
    assert (back.numbers, back.keys, set(back.lost)) == (tuple(numbers), tuple(keys), set(values))


@given(lost, st.data())
def test_damaged_bytes_are_malformed_or_say_exactly_what_they_are(values, data):
    raw = bytearray(encode_lost(values))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    for decode, encode in ((decode_lost, encode_lost), (decode_trace, encode_trace)):
        try:
            assert encode(decode(bytes(raw))) == bytes(raw)
        except Malformed:
            pass


@pytest.mark.parametrize(
    "raw", [b"", b"CLT2", b"CLT1\0", b"CLT1\0\0\0\0\5abc", b"CLT1\x09\0\0\0\0", b"CLT1\1\0\0\0\1\xff"]
)
def test_what_is_none_is_malformed(raw):
    with pytest.raises(Malformed):
        decode_lost(raw)


def test_a_trace_is_no_list_of_lost_values():
    with pytest.raises(Malformed):
        decode_lost(encode_trace(Trace((1,), ("p",), (b"x",))))


def test_what_names_a_patient_is_not_printed():
    trace = Trace((1,), ("p",), (b"Hartog", Identifier("name", "Hartog")))
    survey = Survey(1, Identity("p"), (Identifier("name", "Hartog"),))
    assert "Hartog" not in repr(trace) + repr(survey)


def test_a_patients_studies_are_searched_for_what_only_the_others_lost():
    one, two = Trace((1, 2), ("p1", "s1"), (b"a", b"b")), Trace((3,), ("p1", "s2"), (b"b", b"c"))
    alone, none = Trace((4,), ("p2", "s3"), (b"d",)), Trace((), ("p1", "s4"), (b"e",))
    found = {trace.numbers: set(fresh) for trace, fresh in to_search([one, two, alone, none])}
    assert found == {(1, 2): {b"c", b"e"}, (3,): {b"a", b"e"}}


def test_what_one_study_lost_as_a_number_and_another_as_a_text_is_a_text_for_both():
    one, two = Trace((1,), ("p1", "s1"), (Opaque(b"hart"),)), Trace((2,), ("p1", "s2"), (b"hart",))
    found = {trace.numbers: set(fresh) for trace, fresh in to_search([one, two])}
    assert found[1,] == {b"hart"} and not any(isinstance(value, Opaque) for value in found[1,])
    residue = Residue()
    residue.lost([Opaque(b"hart"), Opaque(b"vos!")])
    assert len(residue.take()) == 2 and residue.opaque == {b"hart", b"vos!"}
    residue.lost([b"hart"])
    (later,) = residue.take()  # told to whoever searches the patient's other files
    assert later == b"hart" and not isinstance(later, Opaque) and residue.opaque == {b"vos!"}
    back = decode_lost(encode_lost([Opaque(b"hart"), b"hart"]))
    assert sorted(isinstance(value, Opaque) for value in back) == [False, True]


def test_what_one_file_names_all_files_of_its_patient_and_study_know():
    ann, bob = Identifier("name", "Ann"), Identifier("name", "Bob")
    surveys = [
        Survey(1, Identity("p1", study_uid="s1"), (ann,)),
        Survey(2, Identity("p2", study_uid="s1"), (bob,)),
        Survey(3, Identity("p3", study_uid="s3")),
        Survey(4, exclusion="not_dicom"),
    ]
    both = {"p1": [ann, bob], "p2": [ann, bob]}
    assert known_of(surveys) == [both, both, {"p3": []}, {}]

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediator.deid.pseudonyms import Pseudonyms
from mediator.errors import UsageFault
from mediator.import_orders import Column
from node.intake.clinical import Clinical

KEYED = Pseudonyms(bytes(32), "liver")
COLUMNS = (Column("lesion", minimum=0, maximum=1), Column("grade", "category", categories=("low", "high")))


def read(tmp_path, text: str | bytes, columns=COLUMNS) -> Clinical:
    path = tmp_path / "clinical.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    clinical = Clinical(columns)
    clinical.read(path.read_bytes(), KEYED)
    return clinical


HEAD = "PatientID,StudyInstanceUID,name,lesion,grade\n"


def test_only_ordered_columns_survive_and_only_allowed_values(tmp_path):
    clinical = read(tmp_path, HEAD + "P1,1.2.1,Hartog,1,low\nP1,1.2.2,Hartog,12345678,Hartog\nP2,1.2.3,Vermeer,,high\n")
    assert clinical.of(KEYED.study("1.2.1"), KEYED.patient("P1")) == {"lesion": 1.0, "grade": "low"}
    assert clinical.of(KEYED.study("1.2.2"), KEYED.patient("P1")) == {"lesion": None, "grade": None}
    assert clinical.of(KEYED.study("1.2.3"), KEYED.patient("P2")) == {"lesion": None, "grade": "high"}
    assert dict(clinical.refused) == {"lesion": 1, "grade": 1}


def test_a_row_of_another_patient_or_given_twice_says_nothing(tmp_path):
    clinical = read(tmp_path, HEAD + "P1,1.2.1,x,1,low\nP9,1.2.2,x,1,low\nP1,1.2.3,x,1,low\nP1,1.2.3,x,0,low\n")
    assert clinical.of(KEYED.study("1.2.2"), KEYED.patient("P1")) is None
    assert clinical.of(KEYED.study("1.2.3"), KEYED.patient("P1")) is None
    assert clinical.of(KEYED.study("1.2.4"), KEYED.patient("P1")) is None
    assert [clinical.contradicts(KEYED.study(f"1.2.{n}"), KEYED.patient("P1")) for n in (1, 2, 3, 4)] == [
        False, True, False, False,
    ]  # fmt: skip
    assert dict(clinical.refused) == {"study_twice": 1}


ROW = "P1,1.2.1,x,1,low\n"


@pytest.mark.parametrize(
    ("text", "says", "cure"),
    [
        ("", "no column PatientID, StudyInstanceUID, lesion, grade", "first line"),
        ("PatientID,lesion,grade\n", "no column StudyInstanceUID", "wanted are PatientID, StudyInstanceUID, lesion"),
        ("PatientID,StudyInstanceUID,lesion\n", "no column grade", "first line"),
        ("PatientID,StudyInstanceUID,Lesion,grade \n", "no column lesion, grade", "in other letters"),
        ("PatientID,StudyInstanceUID,lesion,lesion,grade\n", "the column lesion twice", "rename"),
        ((HEAD + ROW).replace(",", ";"), "no column PatientID", "not separated by commas"),
        ((HEAD + ROW).replace(",", "\t"), "no column PatientID", "not separated by commas"),
        (ROW + ROW, "no column PatientID", "its first line names its columns"),
        (b"\xff\xfe" + HEAD.encode(), "not CSV in UTF-8", "CSV UTF-8"),
        ((HEAD + ROW).encode("utf-16"), "not CSV in UTF-8", "CSV UTF-8"),
        ((HEAD + ROW.replace("x", "\u00fc")).encode("latin-1"), "not CSV in UTF-8", "CSV UTF-8"),
        (HEAD + '"unfinished', "not CSV", "CSV UTF-8"),
        (HEAD, "no row", ""),
        (HEAD + "\n\n", "no row", ""),
        (HEAD + ROW + "P2,1.2.2,Hartog, J,1,low\n", "line 3 of the clinical file has 6 cells, its first 5", "quotes"),
        (HEAD + ROW + "P2,1.2.2\n", "line 3 of the clinical file has 2 cells", "quotes"),
        (HEAD + "P1,1.2E+45,x,1,low\n", "UID under StudyInstanceUID", "text"),
        (HEAD + ",1.2.1,x,1,low\n", "no row of the clinical file has a PatientID", "text"),
        (HEAD + "P1,1.2.1,x,yes,low\n", "a value for lesion that --column allows", "a number of 0 to 1"),
        (HEAD + "P1,1.2.1,x,1,LOW\n", "a value for grade that --column allows", "one of low, high"),
        (HEAD + ROW + ROW, "every study has several rows", "one row for each study"),
    ],
)  # fmt: skip
def test_a_table_that_is_not_what_was_ordered_is_refused_and_the_cure_named(tmp_path, text, says, cure):
    with pytest.raises(UsageFault) as fault:
        read(tmp_path, text)
    assert says in fault.value.message and cure in fault.value.hint, (fault.value.message, fault.value.hint)


TOKEN = "Zephyrine"
cells = st.sampled_from(
    ["", "1", "low", "1.2.3", "1e400", f"{TOKEN}", f"{TOKEN};{TOKEN}", f'"{TOKEN}', f"{TOKEN}\n", "lesion"]
)
names_of_columns = st.sampled_from(
    ["PatientID", "StudyInstanceUID", "lesion", "grade", "patientid", f" {TOKEN}", TOKEN, f"{TOKEN};lesion", ""]
)
tables = st.tuples(
    st.lists(names_of_columns, max_size=6), st.lists(st.lists(cells, max_size=6), max_size=4), st.sampled_from(",;\t")
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tables)
def test_no_cell_of_the_file_is_ever_said_not_even_of_its_first_line(tmp_path, table):
    header, rows, mark = table
    text = io.StringIO()
    csv.writer(text, delimiter=mark, quoting=csv.QUOTE_MINIMAL, escapechar="\\").writerows([header, *rows])
    try:
        clinical = read(tmp_path, text.getvalue())
    except UsageFault as fault:
        assert TOKEN not in fault.message + fault.hint
    else:
        assert TOKEN not in repr(clinical.refused) + repr(clinical.types)


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_table_or_a_fault_of_ours(tmp_path, raw):
    try:
        read(tmp_path, raw)
    except UsageFault:
        pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Label"}, {"name": "patient"}, {"name": "a b"}, {"name": "x", "minimum": 2.0, "maximum": 1.0},
        {"name": "x", "kind": "category"}, {"name": "x", "categories": ("a",)},
        {"name": "x", "kind": "category", "categories": tuple(f"name{n}" for n in range(21))},
        {"name": "x", "kind": "category", "categories": ("=cmd()",)},
    ],
)  # fmt: skip
def test_an_order_cannot_name_such_a_column(wrong):
    with pytest.raises(ValueError, match=r"clinical column|categories"):
        Column(**wrong)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "2", "0x1", "one", "1e400"])
def test_numbers_are_finite_and_within_bounds(text):
    assert COLUMNS[0].accept(text) is None

import os

import pytest

from mediator.deid.orders import Column
from mediator.deid.pseudonyms import Pseudonyms
from mediator.errors import UsageFault
from node.intake.clinical import Clinical

KEYED = Pseudonyms(bytes(32), "liver")
COLUMNS = (Column("lesion", minimum=0, maximum=1), Column("grade", "category", categories=("low", "high")))


def read(tmp_path, text: str | bytes, columns=COLUMNS) -> Clinical:
    path = tmp_path / "clinical.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    clinical = Clinical(columns)
    clinical.read(os.open(path, os.O_RDONLY), KEYED)
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
    assert dict(clinical.refused) == {"patient_mismatch": 1, "study_twice": 1}


@pytest.mark.parametrize(
    "text",
    [
        "", "PatientID,lesion,grade\n", "PatientID,StudyInstanceUID,lesion\n",
        "PatientID,StudyInstanceUID,lesion,lesion,grade\n", b"\xff\xfe" + HEAD.encode(),
        HEAD + '"unfinished',
    ],
)  # fmt: skip
def test_a_table_that_is_not_what_was_ordered_is_refused(tmp_path, text):
    with pytest.raises(UsageFault):
        read(tmp_path, text)


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

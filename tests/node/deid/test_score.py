"""What each profile promises, asked as MIDI-B asks (ten actions), of patients with objects of every kind."""

import copy
import re
from pathlib import Path

import pytest
from pydicom import config

from node.deid.pixels import PixelGate
from node.deid.profiles import profile_names
from tests.bench.score import WANTED, scored
from tests.sim.scored import patients, table
from tests.sim.scorer import ACTIONS, PROMISES, REMOVAL, Score, score

MANUAL = Path(__file__).parents[3] / "deploy" / "docs" / "deidentification.md"


@pytest.fixture(scope="module")
def reader():
    with PixelGate() as gate:
        yield gate


@pytest.mark.parametrize("profile", profile_names())
def test_each_profile_keeps_9995_in_10000_of_what_it_promises_and_leaks_nothing(profile, reader):
    found = scored(profile, 3, 1, reader)
    assert found.share(REMOVAL) == 1, found.wrong
    assert found.share() >= WANTED, found.wrong
    assert found.asked.total() > 5000 and all(found.asked[action] for action in ACTIONS)


def spoiled(spoil):
    """The score of one patient's files as they are, but for what `spoil` does to each copy."""
    (patient,) = patients(1)
    pairs = {}
    with config.disable_value_validation():
        for kind, made in patient.files.items():
            made.file_meta, made.preamble = type(made)(), b""
            after = copy.deepcopy(made)
            spoil(after)
            pairs[kind] = made, after
        return score(pairs, [], PROMISES["eucaim"])


@pytest.mark.parametrize(
    ("action", "spoil"),
    [
        ("tag_retained", lambda one: one.pop("Modality")),
        ("text_retained", lambda one: setattr(one, "SeriesDescription", "")),
        ("text_notnull", lambda one: setattr(one, "PatientName", "")),
        ("date_shifted", lambda one: setattr(one, "SeriesDate", "20240130")),
        ("uid_changed", lambda one: None),
        ("uid_consistent", lambda one: setattr(one, "StudyInstanceUID", f"2.25.{id(one)}")),
        ("patid_consistent", lambda one: setattr(one, "PatientID", str(id(one)))),
        ("pixels_retained", lambda one: "PixelData" in one and setattr(one, "PixelData", one.PixelData[::-1])),
    ],
)
def test_the_scorer_sees_each_kind_of_fault(action, spoil):
    untouched, found = spoiled(lambda one: None), spoiled(spoil)
    assert found.asked[action] and found.share([action]) < 1
    if action not in ("date_shifted", "uid_changed"):  # files as they were are wrong in these two alone
        assert untouched.share([action]) == 1


def test_the_manual_has_the_table_and_nothing_in_it_is_below():
    text = MANUAL.read_text("utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (.+ of .+) \|$", text, re.MULTILINE))
    assert table({name: Score() for name in profile_names()}).splitlines()[0] in text
    assert [row for row in rows if row in (*ACTIONS, "all")] == [*ACTIONS, "all"]
    for row in (*ACTIONS, "all"):
        for cell in rows[row].split(" | "):
            share, _, asked = cell.partition(" of ")
            assert float(share) >= 100 * WANTED and int(asked) > 0
    assert all(int(cell.partition(" of ")[2]) > 5000 for cell in rows["all"].split(" | "))

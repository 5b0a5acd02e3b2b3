"""Head scans under a profile that holds faces: they pass when a person says what took the faces off, and it is said
everywhere that he did; nothing is claimed as ours."""

import re
from datetime import UTC, datetime

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mediator.audit import Action, AuditRecord, Verdict
from mediator.audit_words import sentence
from mediator.datasets import account_of
from mediator.grammar import Ungrammatical, check_tool
from mediator.import_orders import IngestOrder
from node.deid.profiles import profile_text
from node.intake.run_import import IntakeFolders
from tests.node.cli.deid_desk import cloister as cloister
from tests.node.cli.deid_desk import key as key
from tests.node.cli.deid_desk import options, report
from tests.sim.deid_workers import InProcess
from tests.sim.intake import steps_of
from tests.sim.pictures import as_file, ct, dataset

TOOL = "pydeface-2.1"
BAD = [
    "", " ", "pydeface 2.1", "PyDeface", "a" * 65, "a\n", "a\x1b[31m", "-rf", "a/../b", "a,b", '{"a":1}', "m\u00fcller",
    "x-1.2.840.10008.1", "x-2.25.7", "a\u202eb",
]  # fmt: skip


@pytest.fixture
def profile(tmp_path):
    """A site's own: eucaim, and faces to a person; what says that it has no text is not read, for it costs seconds."""
    text = 'look_at = "unless-no"\n' + profile_text("eucaim").replace('name = "eucaim"', 'name = "heads"')
    text = re.sub(r"options = \[", 'options = ["clean-visual-features", ', text, count=1)
    path = tmp_path / "heads.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def source(tmp_path):
    """A head that says itself that it shows no face, one that says nothing, and a chest."""
    folder = tmp_path / "source"
    folder.mkdir()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113102", "DCM"
    code.CodeMeaning = "Clean Recognizable Visual Features Option"
    for number, (part, more) in enumerate(
        [
            ("HEAD", {"RecognizableVisualFeatures": "NO", "DeidentificationMethodCodeSequence": Sequence([code])}),
            ("HEAD", {}),
            ("CHEST", {}),
        ]
    ):
        one = dataset(
            "CT", ct(number, 64), BodyPartExamined=part, SliceThickness="1.0", BurnedInAnnotation="NO", **more
        )
        one.SOPInstanceUID = f"1.2.826.0.1.111.{number}"
        one.StudyInstanceUID = f"1.2.826.0.1.222.{number}"
        as_file(folder / f"{number}.dcm", one)
    return folder


def run(cloister, key, source, out, profile, *more):
    said = cloister("deid", "run", source, out, *options(key, *more, profile=profile))
    assert said.code == 0
    return said.json


def test_a_head_passes_only_while_somebody_says_what_defaced_it(cloister, key, source, tmp_path, profile):
    held = run(cloister, key, source, tmp_path / "a", profile)
    assert (held["written"], held["review_reasons"]) == (1, {"recognisable_face": 2})
    passed = run(cloister, key, source, tmp_path / "b", profile, "--defaced-by", TOOL)
    assert (passed["written"], passed["review"], passed["notes"]["defaced_before"]) == (3, 0, 2)
    assert passed["defaced_by"] == TOOL and passed["defaced_said_by"]
    assert ["defaced_before" in line["notes"] for line in report(tmp_path / "b")] == [True, True, False]
    again = run(cloister, key, source, tmp_path / "c", profile)
    assert again["review_reasons"] == {"recognisable_face": 2} and "defaced_by" not in again


def test_what_others_did_is_never_claimed_as_ours(cloister, key, source, tmp_path, profile):
    run(cloister, key, source, tmp_path / "out", profile, "--defaced-by", TOOL)
    for path in (tmp_path / "out").rglob("*.dcm"):
        one = pydicom.dcmread(path)
        codes = [code.CodeValue for code in one.DeidentificationMethodCodeSequence]
        assert "113102" not in codes and TOOL.encode() not in path.read_bytes()
        # as its maker wrote it, with or without us
        assert one.get("RecognizableVisualFeatures", "") in ("NO", "")
    said = [pydicom.dcmread(path).get("RecognizableVisualFeatures") for path in (tmp_path / "out").rglob("*.dcm")]
    assert said.count("NO") == 1


def test_of_images_without_a_head_nothing_changes(cloister, key, source, tmp_path, profile):
    for number in (0, 1):
        (source / f"{number}.dcm").unlink()
    run(cloister, key, source, tmp_path / "a", profile)
    told = run(cloister, key, source, tmp_path / "b", profile, "--defaced-by", TOOL)
    assert "defaced_before" not in told["notes"] and report(tmp_path / "a") == report(tmp_path / "b")
    a, b = (sorted((tmp_path / name).rglob("*.dcm")) for name in "ab")
    assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b] and len(a) == 1


@pytest.mark.parametrize("words", BAD[1:])
def test_words_that_could_be_read_as_something_else_are_none(tmp_path, words):
    with pytest.raises(Ungrammatical):
        check_tool(words, "it")
    with pytest.raises(ValueError):
        order(tmp_path, "eucaim", words)


@pytest.mark.parametrize("words", [BAD[1], BAD[6], BAD[13]])
def test_they_are_refused_before_anything_and_not_shown(cloister, key, source, tmp_path, profile, words):
    said = cloister("deid", "run", source, tmp_path / "out", *options(key, f"--defaced-by={words}", profile=profile))
    assert said.code == 2 and not list(tmp_path.glob("out*"))
    assert not words.strip() or words not in said.err


def order(source, profile, tool=""):
    return IngestOrder("ingest-0123456789ab", "alpha", "liver", "heads", str(source), profile, None, (), 0.0, tool)


def imported(source, profile, folder, tool=""):
    (folder / "handover").mkdir(parents=True)
    where = IntakeFolders(folder / "quarantine", folder / "handover")
    *_, last = steps_of(order(source, profile, tool), where, workers=InProcess)
    return last.report


def test_an_import_has_it_in_the_dataset_and_the_next_one_without_it_holds_again(source, tmp_path, profile):
    held = imported(source, profile, tmp_path / "a")
    assert held.instances_excluded == {"recognisable_face": 2} and held.studies_published == 1
    passed = imported(source, profile, tmp_path / "b", TOOL)
    assert passed.studies_published == 3 and passed.defaced_by == TOOL
    assert account_of(passed).counts[f"notes.defaced_before.{TOOL}"] == 2
    again = imported(source, profile, tmp_path / "c")
    assert again.instances_excluded == {"recognisable_face": 2}
    assert not [name for name in account_of(again).counts if "defaced" in name]


@pytest.mark.parametrize("tool", [TOOL, "a", "a" * 64, "mri_deface_1.22", "afni-23.1.10"])
def test_every_tool_that_may_be_named_fits_the_record_of_who_said_so(tool):
    about = f"ingest/ingest-0123456789ab/defaced-by/{tool}"
    made = AuditRecord(1, datetime.now(UTC), "data_steward.anna", Action.INGEST_ORDER, about, "", Verdict.ALLOWED, "")
    assert made.object == about
    assert f"of images that {tool} is said to have defaced" in sentence(made)

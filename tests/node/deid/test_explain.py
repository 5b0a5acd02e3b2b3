"""What `explain` tells is what is done: each line is held against the file the engine writes."""

import io

import pydicom
import pytest
from pydicom import config
from pydicom.dataset import Dataset

from mediator.deid.profile import compile_profile, parse
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.explain import explain_file
from node.deid.profiles import load_profile, profile_names, profile_text, standard
from tests.sim.containers import planted_study
from tests.sim.dicom import ct_slice, raw_element, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")


def written(content: bytes, profile: str, folder) -> Dataset:
    engine = open_engine(profile)
    source = engine.read(content)
    subject = Subject(KEYED, KEYED.patient(source.facts.patient_id), 77, "alpha")
    assert engine.write(source, subject, folder / "written") is None
    raw = (folder / "written").read_bytes()
    (folder / "written").unlink()
    return pydicom.dcmread(io.BytesIO(raw))


def told(path, profile: str) -> dict[str, tuple[str, str]]:
    """(action, rule) of the elements at the top level, by tag."""
    _verdict, lines = explain_file(path, load_profile(profile))
    return {line.tag: (line.action, line.rule) for line in lines if line.depth == 0 and line.tag}


@pytest.mark.parametrize("profile", profile_names())
def test_every_line_is_what_happens_to_every_kind_of_object(tmp_path, profile):
    (tmp_path / "in").mkdir()
    planted = planted_study(tmp_path / "in")
    compared = 0
    for kind, path in planted.files.items():
        with config.disable_value_validation():
            before, after = pydicom.dcmread(path), written(path.read_bytes(), profile, tmp_path)
            rows = told(path, profile)
            for tag, (action, _rule) in rows.items():
                if not tag.startswith("(") or "x" in tag or action in ("copy", "rebuilt"):
                    continue
                number = int(tag[1:5] + tag[6:10], 16)
                old, new = before.get(number), after.get(number)
                compared += 1
                match action:
                    case "remove":
                        assert new is None, (kind, tag)
                    case "empty":
                        assert new is not None and not new.value, (kind, tag)
                    case "keep" | "cap-age" | "keep-zone":
                        assert new is not None and (old.value == new.value or action != "keep"), (kind, tag)
                    case "replace-uid":
                        # the standard's own UIDs stay
                        assert new is not None and (new.value != old.value or old.value.startswith("1.2.840.10008"))
                    case _:
                        assert new is not None and (new.value or action == "recurse"), (kind, tag, action)
            shown = {int(tag[1:5] + tag[6:10], 16) for tag in rows if tag.startswith("(") and "x" not in tag}
            assert {int(element.tag) for element in after} <= shown, kind
    assert compared > 300


def test_what_may_not_be_missing_is_told_with_what_stands_in_for_it(tmp_path):
    dataset = ct_slice()
    dataset.Manufacturer, dataset.SoftwareVersions = "HARTOG INSTRUMENTS", "VB17"
    dataset[0x00280301] = raw_element(0x00280301, "CS", b"Hartog")
    dataset.SliceThickness = "5"
    dataset[0x00180060] = raw_element(0x00180060, "DS", b"about 120 ")
    dataset.SeriesDescription = "Hartog"
    (tmp_path / "a").write_bytes(to_bytes(dataset))
    basic, eucaim = told(tmp_path / "a", "basic"), told(tmp_path / "a", "eucaim")
    for rows in (basic, eucaim):
        assert rows["(0008,0070)"][0] == "dummy" and "PS3.5 7.4" in rows["(0008,0070)"][1]
        assert rows["(0028,0301)"][0] == "empty" and "may not stay" in rows["(0028,0301)"][1]
        assert rows["(0018,0060)"][0] == "empty" and rows["(0018,0050)"][0] == "keep"
        assert [rows[tag][0] for tag in ("(0012,0062)", "(0012,0063)", "(0012,0064)", "(0028,0303)")] == (
            ["written by us"] * 4
        )
    assert basic["(0018,1020)"][0] == "dummy" and basic["(0008,103E)"][0] == "remove"
    assert eucaim["(0008,103E)"][0] == "empty"
    assert "(0010,0021)" not in eucaim
    assert told(tmp_path / "a", "pseudonymise")["(0010,0021)"][0] == "written by us"


def test_pixels_that_must_be_read_first_are_told(tmp_path):
    dataset = ct_slice()
    (tmp_path / "unsaid").write_bytes(to_bytes(dataset))
    dataset.BurnedInAnnotation = "NO"
    (tmp_path / "said").write_bytes(to_bytes(dataset))
    believing = compile_profile(parse('look_at = "unless-no"\n' + profile_text("basic")), standard())
    for table, said in ((load_profile("eucaim"), True), (believing, False)):
        for name, looked in (("unsaid", True), ("said", said)):
            (pixels,) = [line for line in explain_file(tmp_path / name, table)[1] if line.tag == "(7FE0,0010)"]
            assert (
                pixels.rule.startswith("always: byte for byte") and ("after it was looked at" in pixels.rule) is looked
            )

"""The bench's own arithmetic: which share is below its line, and what is left of a name."""

import numpy as np

from tests.bench.pixels import _false_flags, _ink_left, _misses, _recall
from tests.sim.pictures import as_file, dataset


def row(found, **more):
    places = {"script": "thai", "kind": "CT", "height": 12, "contrast": "faint", "angle": 0, "slices": "one"}
    return places | {"found": found} | more


def clean(kind, flagged):
    return {"kind": kind, "flagged": flagged, "cpu_s": 1.0, "pictures": 2}


def test_recall_by_each_dimension_and_its_line():
    rows = [row(True)] * 98 + [row(False, script="greek"), row(False)]
    told = _recall(rows)
    assert (told[0]["found"], told[0]["of"]) == (98, 100) and _misses(told, []) == []
    assert [(one["found"], one["of"]) for one in told if one["value"] in ("thai", "greek")] == [(0, 1), (98, 99)]
    assert _misses(_recall([*rows, row(False)]), []) == ["recall 98/101"]


def test_false_flags_have_a_line_for_slices_and_another_elsewhere():
    rows = [clean("CT", flagged) for flagged in [True, *[False] * 49]]
    rows += [clean("PT", flagged) for flagged in [True, True, *[False] * 48]]
    rows += [clean("US", flagged) for flagged in [True, *[False] * 9]]
    told = _false_flags(rows)
    assert _misses([], told) == ["PT flagged 2/50"]
    assert {one["cpu_ms_a_picture"] for one in told} == {500}


def test_what_was_blacked_out_is_not_left_whatever_lies_behind_it(tmp_path):
    for ground, letters in ((0, 200), (200, 0)):
        frame = np.full((30, 40), ground, dtype=np.uint8)
        mask = np.zeros(frame.shape, dtype=bool)
        mask[10:14, 10:30] = True
        frame[mask] = letters
        gone = frame.copy()
        gone[6:18, 6:34] = 0
        assert _ink_left(as_file(tmp_path / "a.dcm", dataset("US", gone)), frame, mask) == 0.0
        assert _ink_left(as_file(tmp_path / "b.dcm", dataset("US", frame)), frame, mask) == 1.0

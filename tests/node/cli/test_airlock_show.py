"""What a reviewer reads of counts that are near one another."""

from __future__ import annotations

from mediator.airlock.review import FileState
from mediator.disclosure import NearCount, ShownCount
from node.cli.steward.airlock import _beside
from node.core.counts import near_of, near_text
from node.ipc.airlock import FileLine, ShownFile
from node.ipc.messages import pack, unpack
from tests.mediator import samples


def near(**changes: object) -> NearCount:
    base: dict[str, object] = {
        "here": ShownCount("n", (("age", "old"), ("sex", "f")), 39),
        "earlier": ShownCount("patients", (), 40, ("sex",)),
        "name": "a.csv", "run": "run-1", "dataset_version": samples.VERSION, "time": samples.NOW, "left": True,
        "others": 3, "same_group": False,
    }  # fmt: skip
    return NearCount(**(base | changes))  # type: ignore[arg-type]


def test_both_numbers_are_told_and_where_the_other_one_left() -> None:
    day = samples.NOW.date()
    assert _beside(near(), samples.VERSION) == (
        "n age=old sex=f", 39, "patients added up over sex", 40, 1, f"a.csv of run-1, left {day}", 3
    )  # fmt: skip
    assert _beside(near(left=False), samples.VERSION)[5] == f"a.csv of run-1, waits since {day}"
    assert _beside(near(time=None, same_group=True), samples.VERSION)[5] == "a.csv of run-1, one group"
    assert _beside(near(), samples.OTHER_VERSION)[5].endswith(", another dataset version")


def test_they_cross_the_socket_and_the_store_as_they_are() -> None:
    pairs = (near(), near(left=False, time=None))
    assert near_of(near_text(pairs)) == pairs and near_of(near_text(())) == ()
    line = FileLine(
        "file-1", "run-1", "p", 1, "a.csv", "review", FileState.CHECKED, None, 0, 1, False, samples.NOW, samples.NOW
    )
    shown = ShownFile(line, b"patients\n40\n", "a" * 64, "{}", "b" * 64, (), pairs)
    assert unpack(ShownFile, pack(shown)) == shown

"""An image withdrawn in the middle of a task."""

from __future__ import annotations

from mediator.errors import Code
from mediator.jobs import JobState
from node.core.images import images
from node.ipc.caller import Caller
from tests.mediator import samples
from tests.node.core.desk import Desk, Gate, eventually


def test_a_withdrawn_image_ends_its_containers_and_starts_none(desk: Desk, gate: Gate) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    assert images.withdraw(desk.core, desk.boxes, samples.IMAGE, "a.silva", caller=Caller("data_steward")) == 1
    ended = desk.until(JobState.STOPPED, JobState.REFUSED, JobState.FAILED)
    assert ended.code is Code.IMAGE_NOT_APPROVED and ended.state is JobState.STOPPED
    assert desk.runner.containers == {} and list((desk.root / "work").iterdir()) == [] and desk.releases() == []
    desk.ask(attempt=2)
    again = desk.until(JobState.REFUSED, attempt=2)
    assert again.code is Code.IMAGE_NOT_APPROVED and gate.asked == 1
    about = [each.about for each in desk.log() if each.action == "image_withdraw"]
    assert about == [samples.IMAGE] and len(desk.charges()) == 1

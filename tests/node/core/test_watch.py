"""The watch that hangs is seen: a service manager is told no longer that core lives."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

from containers.warm.pool import Sandboxes
from node.core.tasks.watch import Watch
from tests.node.core.desk import Desk
from tests.node.host.test_supervisor import until


class Hangs:
    """Sandboxes whose broker answers no more, until it is let go."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = threading.Event()

    def running(self) -> list[object]:
        self.asked.set()
        self.answers.wait(30)
        return []

    def stop_idle(self, _idle_s: float) -> None: ...

    def tidy(self) -> None: ...


def test_a_watch_that_hangs_does_not_come_round_and_comes_round_again(tmp_path: Path) -> None:
    desk, boxes = Desk(tmp_path), Hangs()
    watch = Watch(
        desk.core, cast(Sandboxes, boxes), desk.outbox, lambda: None,
        idle_s=900, checkpoint_every_s=900, longest_round_s=1.5,
    )  # fmt: skip
    watch.start()
    try:
        assert watch.comes_round
        assert boxes.asked.wait(10)
        until(lambda: not watch.comes_round)
        boxes.answers.set()
        until(lambda: watch.comes_round)
    finally:
        boxes.answers.set()
        watch.stop()

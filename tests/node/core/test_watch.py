"""The watch that hangs is seen: a service manager is told no longer that core lives. And what a look costs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from containers.warm.pool import Sandboxes, SandboxKey
from mediator.errors import Code
from mediator.types import Kind
from node.core.store.store import Store
from node.core.tasks import permit_basis
from node.core.tasks.watch import Watch
from tests.mediator import samples
from tests.node.core.desk import Desk
from tests.node.host.test_supervisor import until


class Hangs:
    """Sandboxes whose broker answers no more, until it is let go."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = threading.Event()

    def running(self) -> Sequence[SandboxKey]:
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


class Serving(Hangs):
    """Sandboxes of one run, for training and for evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[Code, set[Kind]]] = []

    def running(self) -> Sequence[SandboxKey]:
        kinds = (Kind.TRAIN, Kind.EVALUATE)
        return tuple(
            SandboxKey("run-1", "lesions-2026", 2, samples.VERSION, kind, samples.IMAGE, "e" * 64) for kind in kinds
        )

    def begin_stop(self, code: Code, chosen: Callable[[SandboxKey], bool]) -> Any:
        told = [key for key in self.running() if chosen(key)]
        self.ended.append((code, {key.task for key in told}))
        return type("Stopping", (), {"told": told, "wait": lambda *_: None})()


def test_documents_are_opened_once_and_the_ground_of_all_containers_of_a_run_is_read_once_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, boxes, counted = Desk(tmp_path), Serving(), Counter[str]()
    watch = Watch(desk.core, cast(Sandboxes, boxes), desk.outbox, lambda: None, idle_s=900, checkpoint_every_s=900)

    def count(where: Any, name: str) -> None:
        real = getattr(where, name)

        def counting(*words: Any, **more: Any) -> Any:
            counted[name] += 1
            return real(*words, **more)

        monkeypatch.setattr(where, name, counting)

    permit_basis._opened_permit.cache_clear()
    permit_basis._opened_acceptance.cache_clear()
    for where, name in ((permit_basis, "open_permit"), (permit_basis, "open_acceptance"), (Store, "read")):
        count(where, name)
    for _ in range(5):
        watch.look()
    assert boxes.ended == []
    assert counted == {"open_permit": 1, "open_acceptance": 1, "read": 5}


def test_what_was_opened_once_ends_by_the_clock_and_grants_nothing_under_other_keys(tmp_path: Path) -> None:
    desk, boxes = Desk(tmp_path), Serving()
    other = replace(desk.core, trust=replace(desk.core.trust, committee=samples.STEWARD_RING))
    watch, under_other_keys = (
        Watch(core, cast(Sandboxes, boxes), desk.outbox, lambda: None, idle_s=900, checkpoint_every_s=900)
        for core in (desk.core, other)
    )
    watch.look()
    assert boxes.ended == []
    under_other_keys.look()
    desk.now += timedelta(days=3650)
    watch.look()
    both = {Kind.TRAIN, Kind.EVALUATE}
    assert [ended for _, ended in boxes.ended] == [both, both]
    assert boxes.ended[0][0] is Code.PERMIT_MISSING and boxes.ended[1][0] is not Code.PERMIT_MISSING

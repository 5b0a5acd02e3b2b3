"""What the node does by itself at its own times, asked for by a person: the record names who asked."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from node.core import staff
from node.core.tasks.trust_sandbox import SandboxTrust
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from tests.node.core.desk import Desk

ANA = Caller("it_admin", "a.silva")


def recorded(desk: Desk, before: int) -> list[tuple[str, str]]:
    with desk.core.store.read() as snapshot:
        lines = [json.loads(line) for line in snapshot.audit_lines(before, 9)]
    return [(line["actor"], line["action"]) for line in lines]


@pytest.mark.parametrize("failures", [(), ("network",)])
def test_a_canary_that_a_person_asked_for_is_theirs(desk: Desk, failures: tuple[str, ...]) -> None:
    trust = SandboxTrust(desk.core, lambda *_: ("f" * 64, failures))
    trust.sandboxes = desk.boxes
    process: Any = SimpleNamespace(trust=trust, core=desk.core)
    before = desk.size()
    assert staff.canary(process, ANA, Empty()).failures == failures
    assert recorded(desk, before) == [("it_admin.a.silva", "canary")]


def test_a_checkpoint_that_a_person_asked_for_is_theirs(desk: Desk) -> None:
    no_hub = SimpleNamespace(refused=True)  # nobody to wait for
    process: Any = SimpleNamespace(core=desk.core, export=lambda: None, witness=no_hub)
    before = desk.size()
    staff.checkpoint(process, ANA, Empty())
    assert recorded(desk, before) == [("it_admin.a.silva", "checkpoint")]

"""The hospital's own switch: everything stops within five seconds, whether the hub is reachable or not."""

from __future__ import annotations

from mediator.audit import Action, Verdict
from mediator.errors import Code
from node.usecases.context import Core, event
from node.usecases.sandboxes import Sandboxes


def pause(core: Core, sandboxes: Sandboxes, actor: str) -> tuple[int, bool]:
    """Pause the node: from now on gate 1 refuses, and running containers are ended. Idempotent.

    Returns how many containers were ended, and whether none is left.
    """
    with core.store.transaction(core.clock()) as tx:
        tx.set_paused(True, event=event(Action.PAUSE, f"site/{core.site}", Verdict.DONE, actor=actor))
    stopped = sandboxes.stop(Code.HOSPITAL_PAUSED, lambda _: True)
    return stopped, sandboxes.settled()


def resume(core: Core, actor: str) -> None:
    """Take the pause away. Nothing starts by itself: the hub asks again when it asks. Idempotent."""
    with core.store.transaction(core.clock()) as tx:
        tx.set_paused(False, event=event(Action.RESUME, f"site/{core.site}", Verdict.DONE, actor=actor))

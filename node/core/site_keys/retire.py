"""The end of a node's site key, in its audit log: decided before anything is destroyed, done when it is gone."""

from __future__ import annotations

import re

from mediator.audit import Action, Verdict
from mediator.errors import Malformed
from node.core.context import Core, event

_KEY_ID = re.compile(r"[0-9a-f]{16}")


def record_retirement(core: Core, key: str, actor: str, *, destroyed: bool) -> None:
    """Write it down. `key` is `mediator.traceability.key_id`'s; raises `Malformed` for anything else."""
    if not _KEY_ID.fullmatch(key):
        raise Malformed("a key id is 16 hexadecimal digits")
    verdict = Verdict.DONE if destroyed else Verdict.ALLOWED
    with core.store.transaction(core.clock()) as tx:
        tx.record(event=event(Action.DEID_KEY_RETIRE, f"deid-key/{key}", verdict, actor=actor))

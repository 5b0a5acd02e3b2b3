"""`cloister check --fix`: what a check can mend by itself, because nothing is lost by it and nobody gets more rights.

Whom this hospital trusts, what it lends, where its data lies and who may read it is for people to say: no fix touches a
configuration's content, a source folder, a key or a secret.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mediator.errors import CloisterError, NotNow
from node.host.config import NodeConfig

# by others than the file's owner
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_CANARY_S = 300.0


@dataclass(frozen=True)
class Fix:
    """One thing to mend: in words, and how."""

    says: str
    apply: Callable[[], None]


def fixes(config: NodeConfig, file: Path) -> Iterator[Fix]:
    """What there is to mend now. Each is looked for when the one before it has been done or declined."""
    if (mode := file.stat().st_mode) & _WRITABLE:
        says = f"take the right to change {file} from everybody but its owner (chmod go-w)"
        yield Fix(says, lambda: file.chmod(stat.S_IMODE(mode) & ~_WRITABLE))
    yield from _state(config)
    yield from _audit_keys(config)
    yield from _canary(config)


def _state(config: NodeConfig) -> Iterator[Fix]:
    from node.host.migrate_state import is_old
    from node.host.state import look_at_state, prepare_state

    if not config.paths.root.exists() or is_old(config):
        return  # to make a state folder, or to move an old one, is an act of its own: cloister node init
    if wrong := look_at_state(config).wrong:
        says = f"put owners and modes in the state folder right, as `cloister node init` does: {'; '.join(wrong)}"
        yield Fix(says, lambda: prepare_state(config))


def _audit_keys(config: NodeConfig) -> Iterator[Fix]:
    from node.cli.it.enrol import audit_keys_text, write_audit_keys

    try:
        wanted, path = audit_keys_text(config), config.paths.audit_keys
        if not path.exists() or path.read_bytes().strip() != wanted.encode("utf-8"):
            yield Fix(f"write {path} anew: it is not what an auditor needs", lambda: write_audit_keys(config))
    except (CloisterError, OSError):
        return  # the audit key's public half cannot be read: by this user, or at all, which the check says


def _canary(config: NodeConfig) -> Iterator[Fix]:
    from node.cli.admin import client_for
    from node.ipc.messages import Empty
    from node.ipc.node import CANARY, STATUS

    try:
        with client_for(config, STATUS) as client:
            never = client.call(STATUS, Empty(), timeout_s=5.0).sandbox == "unknown"
    except CloisterError:
        return

    def attack() -> None:
        with client_for(config, CANARY) as client:
            if client.call(CANARY, Empty(), timeout_s=_CANARY_S).failures:
                raise NotNow("the canary found a way out of the sandbox", hint="see deploy/docs/sandbox.md")

    if never:
        yield Fix("attack our own sandbox once (cloister node canary): a container of a minute", attack)

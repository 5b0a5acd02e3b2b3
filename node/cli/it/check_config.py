"""What `cloister check` says of a node's configuration: who is trusted for what, and what nobody has filled in yet."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mediator.errors import UsageFault
from mediator.signatures import VerifyKey
from node.cli.findings import State, finding
from node.cli.it.run_as import run_as
from node.host.placeholders import placeholders

if TYPE_CHECKING:
    from node.host.config import NodeConfig

# What a single patient's presence changes in the odds of any observation is e to this power: 20 is half a billion.
_MUCH_EPSILON = 20.0
# an export has folders for patients and days; its first file is near the top
_LOOKS = 200
# Without the first two nothing ever runs here; without a hub, local analyses still do.
_PURPOSES: dict[Literal["committee", "stewards", "hub", "witnesses"], tuple[State, str, str]] = {
    "committee": ("missing", "its permits and revocation lists count", "no permit counts"),
    "stewards": ("missing", "their acceptances count", "no acceptance of a permit counts"),
    "hub": ("warning", "its instructions count", "no hub is obeyed: only analyses of this site can run"),
    "witnesses": ("warning", "it co-signs the audit log", "nobody co-signs the audit log"),
}


def configured(config: NodeConfig) -> Iterator[dict[str, Any]]:
    """The findings that the configuration file alone, and this machine's users and folders, give."""
    left = {each.what: each for each in placeholders(config)}
    for each in left.values():
        yield finding(each.what, "missing", each.detail, each.mend)
    for purpose in _PURPOSES:
        if f"trust in {purpose}" not in left:
            yield _trust(config, purpose)
    yield from _accounts(config)
    yield _privacy(config)
    yield from _sources(config)


def _privacy(config: NodeConfig) -> dict[str, Any]:
    privacy, where = config.privacy, "[privacy] epsilon_total"
    if privacy.epsilon_total == 0:
        mend = f"if such a permit shall run, write what all may spend together in {where}"
        return finding("privacy", "warning", f"{where} is 0: no permit with a privacy budget runs here", mend)
    spent = f"all permits together may spend {privacy.epsilon_total:g} on one dataset at delta {privacy.delta:g}"
    if privacy.epsilon_total > _MUCH_EPSILON:
        return finding("privacy", "warning", f"{spent}: over {_MUCH_EPSILON:g} bounds little", f"lower {where}")
    return finding("privacy", "ok", f"{spent} ({where})")


def _trust(config: NodeConfig, purpose: Literal["committee", "stewards", "hub", "witnesses"]) -> dict[str, Any]:
    without, meaning, otherwise = _PURPOSES[purpose]
    keys = [VerifyKey.from_text(text) for text in getattr(config.trust, purpose)]
    if not keys:
        return finding(f"trust in {purpose}", without, otherwise, f"write the public key in [trust] {purpose}")
    ids = ", ".join(key.key_id for key in keys)
    return finding(f"trust in {purpose}", "ok", f"{len(keys)} key{'s' if len(keys) > 1 else ''}, {ids}: {meaning}")


def _accounts(config: NodeConfig) -> Iterator[dict[str, Any]]:
    try:
        config.users.accounts()
        config.staff.groups()
    except UsageFault as fault:
        yield finding("users", "missing", fault.message, fault.hint or "see [users] and [staff]")
        return
    if config.users.separate:
        yield finding("users", "ok", "core, broker, intake and link each under their own")
    else:
        detail = "all processes share one user: the modes of files separate nothing"
        yield finding("users", "warning", detail, "name a system user for each process in [users]")


def _sources(config: NodeConfig) -> Iterator[dict[str, Any]]:
    """Every source folder as the intake process sees it: it is the one that must read there."""
    if not config.intake.source_roots:
        mend = "name a folder in [intake] source_roots"
        yield finding("source folders", "warning", "nothing can be taken in", mend)
    for root in config.intake.source_roots:
        yield _source(config, root)


def _source(config: NodeConfig, root: Path) -> dict[str, Any]:
    who = config.users.intake or "the node's user"
    mend = f"make it, or open it to {who}: setfacl -R -m u:{who}:rX {shlex.quote(str(root))}"

    def said(state: State, detail: str) -> dict[str, Any]:
        return finding("source folder", state, f"{root} {detail}", mend if state == "missing" else "")

    try:
        root.stat()
    except PermissionError:
        pass  # of this user; intake's may be another
    except OSError as error:
        return said("missing", _words(error))
    try:
        intake = config.users.accounts()["intake"]
    except UsageFault:
        return said("unknown", "waits for the users of [users]")
    us, separate = os.geteuid(), config.users.separate
    if separate and us not in (0, intake.uid):
        return said("unknown", "can be looked at by root alone, as the intake process's user")
    user = (intake.uid, intake.gid) if separate else None
    found = run_as(user, lambda: _look(root), groups=intake.groups)
    return said("missing", found) if found else said("ok", "can be read by the intake process")


def _look(root: Path) -> str:
    """What keeps this process from reading in a folder, its first file included; empty when nothing does."""
    folders, left = [root], _LOOKS
    while folders and left:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    left -= 1
                    if entry.is_file(follow_symlinks=False):
                        os.close(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
                        return ""
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    if not left:
                        break
        except OSError as error:
            # never the name of what lies below: it may be a patient's
            return _words(error) if str(error.filename) == str(root) else f"holds what {_words(error)}"
    return ""


def _words(error: OSError) -> str:
    return f"cannot be read, {os.strerror(error.errno or 0).lower()}"

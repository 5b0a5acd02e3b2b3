"""What `cloister check` says of a node's configuration: who is trusted for what, and what nobody has filled in yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mediator.errors import UsageFault
from mediator.signatures import VerifyKey
from mediator.terms import is_placeholder
from node.cli.it.run_as import run_as

if TYPE_CHECKING:
    from node.host.config import NodeConfig

# `unknown`: this user may not look there, which is no fault of the node's
State = Literal["ok", "warning", "missing", "unknown"]

# What `deploy/node.example.toml` calls a hospital and its hub (RFC 2606: nobody's names).
_EXAMPLE_SITE, _EXAMPLE_HOST = "example-hospital", ".example.org"
# What a single patient's presence changes in the odds of any observation is e to this power: 20 is half a billion.
_MUCH_EPSILON = 20.0
# Without the first two nothing ever runs here; without a hub, local analyses still do.
_PURPOSES: dict[Literal["committee", "stewards", "hub", "witnesses"], tuple[State, str, str]] = {
    "committee": ("missing", "its permits and revocation lists count", "no permit counts"),
    "stewards": ("missing", "their acceptances count", "no acceptance of a permit counts"),
    "hub": ("warning", "its instructions count", "no hub is obeyed: only analyses of this site can run"),
    "witnesses": ("warning", "it co-signs the audit log", "nobody co-signs the audit log"),
}


def finding(what: str, state: State, detail: str) -> dict[str, Any]:
    """One line of the check."""
    return {"what": what, "state": state, "detail": detail}


def configured(config: NodeConfig) -> Iterator[dict[str, Any]]:
    """The findings that the configuration file alone, and this machine's users and folders, give."""
    if config.site == _EXAMPLE_SITE:
        yield finding("site", "missing", f"{config.site} is the example's: write the name that permits call this site")
    if f".{config.hub.host}".endswith(_EXAMPLE_HOST):
        yield finding("hub address", "missing", f"{config.hub.host} is the example's: write your hub's in [hub] host")
    yield from _trust(config)
    yield from _accounts(config)
    for gpu in config.schedule.gpus:
        if is_placeholder(gpu.id.partition("-")[2].replace("-", "")):
            yield finding("GPUs", "missing", f"{gpu.id} is the example's: nvidia-smi -L names yours")
    yield _privacy(config)
    yield from _sources(config)


def _privacy(config: NodeConfig) -> dict[str, Any]:
    privacy, where = config.privacy, "[privacy] epsilon_total"
    if privacy.epsilon_total == 0:
        return finding("privacy", "warning", f"{where} is 0: no permit with a privacy budget runs here")
    spent = f"all permits together may spend {privacy.epsilon_total:g} on one dataset at delta {privacy.delta:g}"
    if privacy.epsilon_total > _MUCH_EPSILON:
        return finding("privacy", "warning", f"{spent}: over {_MUCH_EPSILON:g} bounds little ({where})")
    return finding("privacy", "ok", f"{spent} ({where})")


def _trust(config: NodeConfig) -> Iterator[dict[str, Any]]:
    for purpose, (without, meaning, otherwise) in _PURPOSES.items():
        what, keys = f"trust in {purpose}", [VerifyKey.from_text(text) for text in getattr(config.trust, purpose)]
        if any(is_placeholder(key.text) for key in keys):
            yield finding(what, "missing", f"a key of zeros is nobody's: write the real one in [trust] {purpose}")
        elif not keys:
            yield finding(what, without, f"{otherwise}: write the public key in [trust] {purpose}")
        else:
            ids = ", ".join(key.key_id for key in keys)
            yield finding(what, "ok", f"{len(keys)} key{'s' if len(keys) > 1 else ''}, {ids}: {meaning}")
    if any(is_placeholder(person.public_key) for person in config.airlock.persons):
        yield finding("trust in reviewers", "missing", "a key of zeros is nobody's: see [airlock] persons")


def _accounts(config: NodeConfig) -> Iterator[dict[str, Any]]:
    try:
        config.users.accounts()
        config.staff.groups()
    except UsageFault as fault:
        yield finding("users", "missing", f"{fault.message}: {fault.hint}")
        return
    if config.users.separate:
        yield finding("users", "ok", "core, broker, intake and link each under their own")
    else:
        yield finding("users", "warning", "all processes share one user: the modes of files separate nothing")


def _sources(config: NodeConfig) -> Iterator[dict[str, Any]]:
    """Every source folder as the intake process sees it: it is the one that must read there."""
    if not config.intake.source_roots:
        yield finding("source folders", "warning", "nothing can be taken in: name a folder in [intake] source_roots")
    for root in config.intake.source_roots:
        state, detail = _source(config, root)
        yield finding("source folder", state, f"{root} {detail}")


def _source(config: NodeConfig, root: Path) -> tuple[State, str]:
    who = config.users.intake or "the node's user"
    cure = f"make it, or open it to {who} (setfacl -R -m u:{who}:rX {root})"
    try:
        root.stat()
    except PermissionError:
        pass  # of this user; intake's may be another
    except OSError as error:
        return "missing", f"{_words(error)}: {cure}"
    try:
        intake = config.users.accounts()["intake"]
    except UsageFault:
        return "unknown", "waits for the users of [users]"
    us, separate = os.geteuid(), config.users.separate
    if separate and us not in (0, intake.uid):
        return "unknown", "can be looked at by root alone, as the intake process's user"
    user = (intake.uid, intake.gid) if separate else None
    found = run_as(user, lambda: _look(root), groups=intake.groups)
    return ("missing", f"{found}: {cure}") if found else ("ok", "can be read by the intake process")


def _look(root: Path) -> str:
    try:
        os.scandir(root).close()
    except OSError as error:
        return _words(error)
    return ""


def _words(error: OSError) -> str:
    return f"cannot be read, {os.strerror(error.errno or 0).lower()}"

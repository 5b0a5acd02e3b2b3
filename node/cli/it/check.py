"""`cloister check`: what stands, what is missing, one line each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from mediator.errors import CloisterError, IntegrityBroken, NotNow, UsageFault
from mediator.terms import is_placeholder
from node.cli.it.check_config import configured
from node.cli.it.check_config import finding as _finding
from node.cli.it.check_machine import machine
from node.cli.options import Json
from node.cli.output import data, show, talk

_COLOURS = {"ok": "green", "warning": "yellow", "missing": "red", "unknown": "dim"}
_OURS = ("node", "mediator", "containers", "federation")


def check(
    config: Annotated[
        Path | None, typer.Option("--config", envvar="CLOISTER_NODE_CONFIG", help="also check this node")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this installation, and with --config a node: its configuration, folders, engine, processes and sandbox.

    Any user may: what they may not look at is `unknown`, which is no fault. Exit code 5 when anything is missing.
    """
    findings = [_python(), _packages()]
    if config is not None:
        findings += _node(config)
    if as_json:
        show(findings, as_json=True)
    else:
        for finding in findings:
            mark = Text(f"{finding['state']:8}", style=_COLOURS[finding["state"]])
            data.print(mark, Text(f"{finding['what']}: {finding['detail']}"), soft_wrap=True)
    if any(finding["state"] == "missing" for finding in findings):
        talk.print("error: something is missing, see above", markup=False)
        raise typer.Exit(5)


def _python() -> dict[str, Any]:
    version = ".".join(map(str, sys.version_info[:3]))
    return _finding("python", "ok" if (3, 11) <= sys.version_info[:2] < (3, 13) else "missing", version)


def _packages() -> dict[str, Any]:
    """Our four names are ordinary words: one that another distribution took means running somebody else's code."""
    home = Path(__file__).resolve().parents[3]
    for name in _OURS:
        spec = find_spec(name)
        if spec is None or spec.origin is None or not Path(spec.origin).resolve().is_relative_to(home):
            raise IntegrityBroken(
                f"the package {name} is not cloister's", hint="install cloister into an environment of its own"
            )
    return _finding("packages", "ok", f"all four from {home}")


def _node(path: Path) -> list[dict[str, Any]]:
    from node.cli.admin import client_for, load
    from node.ipc.messages import Empty
    from node.ipc.node import STATUS

    config = load(path)
    found = [_finding("configuration", "ok", f"site {config.site}, fingerprint {config.fingerprint}")]
    found += configured(config)
    users_exist = all(each["what"] != "users" or each["state"] != "missing" for each in found)
    if users_exist:
        found.append(_state_folder(config))
    engine = _engine(config)
    found += [engine, *_sentinel(config, asks=engine["state"] == "ok")]
    if engine["state"] == "ok":
        found += machine(config)
    if not users_exist:
        return found
    try:
        with client_for(config, STATUS) as client:
            status = client.call(STATUS, Empty(), timeout_s=5.0)
    except UsageFault as fault:
        return [*found, _finding("core", "unknown", fault.message)]
    except CloisterError as error:
        return [*found, _finding("core", "missing", error.message)]
    found.append(_finding("core", "warning" if status.paused else "ok", "paused" if status.paused else "answers"))
    connected = status.hub_connected
    found.append(_finding("hub", "ok" if connected else "warning", "connected" if connected else "not connected"))
    found.append(_sandbox(status.sandbox, status.sandbox_age_s))
    waits, late = status.airlock_waiting, status.airlock_overdue
    found.append(
        _finding("airlock", "warning" if late else "ok", f"{waits} files wait for people, {late} of them too long")
    )
    aside = status.set_aside
    word = f"{aside} failed too often and are tried no more: cloister node set-aside" if aside else "nothing"
    found.append(_finding("set aside", "warning" if aside else "ok", word))
    age = status.revocation_age_s
    fresh = age is not None and age <= config.limits.max_revocation_age_s
    word = (
        "none yet: every task is refused"
        if age is None
        else f"number {status.revocation_number}, {age / 3600:.1f} h old"
    )
    found.append(_finding("revocation list", "ok" if fresh else "warning", word))
    seen = f"{status.audit_records} records, {status.audit_checkpointed} signed, {status.audit_witnessed} witnessed"
    trouble = status.audit_trouble
    return [*found, _finding("audit log", "missing" if trouble else "ok", _TROUBLE.get(trouble, seen))]


_TROUBLE = {
    "set_back": "set back, so nothing is served: cloister node audit state",
    "not_witnessed": "the hub does not sign it, it goes on elsewhere than the hub saw it: cloister node audit state",
    "clock": "the clock is not believed, so nothing is recorded or served: cloister node audit state",
}


def _state_folder(config: Any) -> dict[str, Any]:
    from node.host.state import look_at_state

    seen = look_at_state(config)
    if seen.wrong:
        return _finding("state folder", "missing", "; ".join(seen.wrong))
    if seen.unseen:
        return _finding("state folder", "unknown", f"this user may not look at {', '.join(seen.unseen)}")
    return _finding("state folder", "ok", str(config.state_dir))


def _sentinel(config: Any, *, asks: bool) -> Iterator[dict[str, Any]]:
    """The image that holds a job's folders: without it no container is ever made."""
    from containers.engine import ContainerEngine

    digest, cure = config.engine.sentinel, "deploy/lib/images.sh cloister-sentinel makes it and prints its digest"
    if is_placeholder(digest):
        yield _finding("sentinel image", "missing", f"[engine] sentinel is a placeholder of zeros: {cure}")
    elif asks:
        try:
            held = ContainerEngine(config.engine.socket).image(digest) is not None
        except NotNow as error:
            yield _finding("sentinel image", "missing", error.message)
            return
        yield _finding("sentinel image", "ok" if held else "missing", digest if held else f"not in the engine: {cure}")


def _sandbox(word: str, age_s: float | None) -> dict[str, Any]:
    """What the newest canary found; one older than a day is renewed before the next task."""
    if age_s is None:
        return _finding("sandbox", "warning", "no canary yet: the first job runs one, or: cloister node canary")
    detail = f"{word} {age_s / 3600:.1f} h ago" + ("" if word == "held" else ": no job runs until a canary passes")
    return _finding("sandbox", "ok" if word == "held" else "missing", detail)


def _engine(config: Any) -> dict[str, Any]:
    from containers.engine import ContainerEngine

    address = config.engine.socket.removeprefix("unix://")
    try:
        Path(address).stat()
    except PermissionError:
        return _finding("engine", "unknown", f"this user may not look at {address}")
    except OSError:
        return _finding("engine", "missing", f"there is none at {address}")
    if not os.access(address, os.W_OK):
        return _finding("engine", "unknown", f"{address} is not open to this user; the broker must be able to use it")
    try:
        facts = ContainerEngine(config.engine.socket).facts(config.engine.runtime or "")
    except NotNow as error:
        return _finding("engine", "missing", error.message)
    facts["runtime"] = facts["runtime"].partition(" [")[0]  # its name, without the options it was registered with
    return _finding("engine", "ok", ", ".join(f"{name} {value}" for name, value in facts.items() if len(value) < 40))

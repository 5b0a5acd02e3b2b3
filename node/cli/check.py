"""`cloister check`: what stands, what is missing, one line each."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator.errors import CloisterError, IntegrityBroken, NotNow
from node.cli.check_machine import machine
from node.cli.options import Json
from node.cli.output import data, show, talk

_OURS = ("node", "mediator", "containers", "federation")


def check(
    config: Annotated[
        Path | None, typer.Option("--config", envvar="CLOISTER_NODE_CONFIG", help="also check this node")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this installation, and with --config a node: its configuration, folders, engine, processes and sandbox."""
    findings = [_python(), _packages()]
    if config is not None:
        findings += _node(config)
    if as_json:
        show(findings, as_json=True)
    else:
        for finding in findings:
            mark = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "missing": "[red]missing[/]"}[
                finding["state"]
            ]
            data.print(f"{mark:9} {finding['what']}: {finding['detail']}", soft_wrap=True)
    if any(finding["state"] == "missing" for finding in findings):
        talk.print("error: something is missing, see above", markup=False)
        raise typer.Exit(5)


def _finding(what: str, state: str, detail: str) -> dict[str, Any]:
    return {"what": what, "state": state, "detail": detail}


def _python() -> dict[str, Any]:
    version = ".".join(map(str, sys.version_info[:3]))
    return _finding("python", "ok" if (3, 11) <= sys.version_info[:2] < (3, 13) else "missing", version)


def _packages() -> dict[str, Any]:
    """Our four names are ordinary words: one that another distribution took means running somebody else's code."""
    home = Path(__file__).resolve().parents[2]
    for name in _OURS:
        spec = find_spec(name)
        if spec is None or spec.origin is None or not Path(spec.origin).resolve().is_relative_to(home):
            raise IntegrityBroken(
                f"the package {name} is not cloister's", hint="install cloister into an environment of its own"
            )
    return _finding("packages", "ok", f"all four from {home}")


def _node(path: Path) -> list[dict[str, Any]]:
    from node.cli.admin import client_for, load
    from node.ipc import verbs
    from node.ipc.messages import Empty
    from node.state import check_state

    config = load(path)
    found = [_finding("configuration", "ok", f"site {config.site}, fingerprint {config.fingerprint[:12]}")]
    wrong = check_state(config)
    found.append(_finding("state folder", "missing" if wrong else "ok", "; ".join(wrong) or str(config.state_dir)))
    if config.users.separate:
        found.append(_finding("users", "ok", "core, broker, intake and link each under their own"))
    else:
        found.append(_finding("users", "warning", "all processes share one user: the modes of files separate nothing"))
    found += [_engine(config), *machine(config)]
    try:
        with client_for(config, verbs.STATUS) as client:
            status = client.call(verbs.STATUS, Empty(), timeout_s=5.0)
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
    age = status.revocation_age_s
    fresh = age is not None and age <= config.limits.max_revocation_age_s
    word = (
        "none yet: every task is refused"
        if age is None
        else f"number {status.revocation_number}, {age / 3600:.1f} h old"
    )
    found.append(_finding("revocation list", "ok" if fresh else "warning", word))
    seen = f"{status.audit_records} records, {status.audit_checkpointed} signed, {status.audit_witnessed} witnessed"
    return [*found, _finding("audit log", "ok", seen)]


def _sandbox(word: str, age_s: float | None) -> dict[str, Any]:
    """What the newest canary found; one older than a day is renewed before the next task."""
    if age_s is None:
        return _finding("sandbox", "warning", "no canary yet: the first job runs one, or: cloister node canary")
    detail = f"{word} {age_s / 3600:.1f} h ago" + ("" if word == "held" else ": no job runs until a canary passes")
    return _finding("sandbox", "ok" if word == "held" else "missing", detail)


def _engine(config: Any) -> dict[str, Any]:
    from containers.engine import Engine

    address = config.engine.socket.removeprefix("unix://")
    if not Path(address).exists():
        return _finding("engine", "missing", f"there is none at {address}")
    if not os.access(address, os.W_OK):
        return _finding("engine", "warning", f"{address} is not open to this user; the broker must be able to use it")
    try:
        facts = Engine(config.engine.socket).facts(config.engine.runtime or "")
    except NotNow as error:
        return _finding("engine", "missing", error.message)
    facts["runtime"] = facts["runtime"].partition(" [")[0]  # its name, without the options it was registered with
    return _finding("engine", "ok", ", ".join(f"{name} {value}" for name, value in facts.items() if len(value) < 40))

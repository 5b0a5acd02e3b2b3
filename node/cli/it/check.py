"""`cloister check`: what stands, what is missing, one line each, and what mends it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator.errors import CloisterError, IntegrityBroken, NotNow, UsageFault
from mediator.terms import is_placeholder
from node.cli.findings import finding, report
from node.cli.options import NODE_FILE, NODE_VARIABLE, Json
from node.cli.output import say

_OURS = ("node", "mediator", "containers", "federation")
_ENGINE_CURE = "start the container engine, and see [engine] socket"


def check(
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar=NODE_VARIABLE, help=f"also check this node (default: {NODE_FILE}, if there)"),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="mend what can be mended without loss, asking before each; then check again")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --fix: mend without asking")] = False,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="also have the node run a small job of nobody's, as `node self-test` does"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check this installation and its node: configuration, machine, disks, hub, folders, processes and sandbox.

    Any user may: what they may not look at is `unknown`, which is no fault. Each line says what mends it. Exit code 5
    when anything is missing.
    """
    if yes and not fix:
        raise UsageFault("--yes says yes to --fix alone", hint="add --fix")
    if fix:
        _mend(config, yes=yes)
    report([*findings(config), *(_self_test(config) if self_test else ())], as_json=as_json)


def _mend(path: Path | None, *, yes: bool) -> None:
    """Mend one thing after the other; what cannot be mended is said, and the next is looked at."""
    from node.cli.admin import load
    from node.cli.it.fixes import fixes

    file = path or NODE_FILE
    if not yes and not sys.stdin.isatty():
        raise UsageFault("there is nobody to ask before each fix", hint="--fix --yes")
    done = 0
    for fix in fixes(load(file), file):
        if not yes and not typer.confirm(f"{fix.says}?", err=True):
            continue
        try:
            fix.apply()
        except (CloisterError, OSError) as error:
            said = error.message if isinstance(error, CloisterError) else os.strerror(error.errno or 0).lower()
            say(f"could not: {fix.says}: {said}")
            continue
        done += 1
        say(f"done: {fix.says}")
    say(f"{done} mended" if done else "nothing was mended")


def _self_test(path: Path | None) -> Iterator[dict[str, Any]]:
    from node.cli.admin import load
    from node.cli.it.check_running import self_test

    yield self_test(load(path or NODE_FILE))


def findings(path: Path | None) -> Iterator[dict[str, Any]]:
    """Every line of the check: of this installation, and of the node where there is one."""
    yield from (_python(), _packages())
    if path is None and NODE_FILE.exists():
        path = NODE_FILE
    if path is not None:
        yield from _node(path)


def _python() -> dict[str, Any]:
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        return finding("python", "missing", version, "install cloister for Python 3.11 or 3.12")
    return finding("python", "ok", version)


def _packages() -> dict[str, Any]:
    """Our four names are ordinary words: one that another distribution took means running somebody else's code."""
    home = Path(__file__).resolve().parents[3]
    for name in _OURS:
        spec = find_spec(name)
        if spec is None or spec.origin is None or not Path(spec.origin).resolve().is_relative_to(home):
            raise IntegrityBroken(
                f"the package {name} is not cloister's", hint="install cloister into an environment of its own"
            )
    return finding("packages", "ok", f"all four from {home}")


def _node(path: Path) -> Iterator[dict[str, Any]]:
    from node.cli.admin import load
    from node.cli.check_disk import disk, volume
    from node.cli.it.check_config import configured
    from node.cli.it.check_hub import certificate, reachable
    from node.cli.it.check_machine import machine
    from node.cli.it.check_running import running

    config = load(path)
    yield finding("configuration", "ok", f"site {config.site}, fingerprint {config.fingerprint}")
    yield _safe_file(path)
    said = list(configured(config))
    yield from said
    users_exist = all(each["what"] != "users" or each["state"] != "missing" for each in said)
    if users_exist:
        yield _state_folder(config)
    yield disk("state disk", config.paths.root)
    yield disk("broker's disk", config.paths.work, least=config.limits.out_bytes)
    yield from volume("state volume", config.paths.root)
    engine = _engine(config)
    yield engine
    yield from _sentinel(config, asks=engine["state"] == "ok")
    if engine["state"] == "ok":
        yield from machine(config)
    if all(each["what"] != "hub address" for each in said):
        yield reachable(config)
    yield certificate(config)
    if users_exist:
        yield from running(config)


def _safe_file(path: Path) -> dict[str, Any]:
    """Whoever changes the configuration decides whom this hospital trusts."""
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        detail = f"{path} may be changed by others than its owner"
        return finding("configuration's file", "missing", detail, f"chmod go-w {path}")
    return finding("configuration's file", "ok", f"{path} may be changed by its owner alone")


def _state_folder(config: Any) -> dict[str, Any]:
    from node.host.state import look_at_state

    seen = look_at_state(config)
    if seen.wrong:
        return finding("state folder", "missing", "; ".join(seen.wrong), "cloister node init, as root or its own user")
    if seen.unseen:
        return finding("state folder", "unknown", f"this user may not look at {', '.join(seen.unseen)}")
    return finding("state folder", "ok", str(config.state_dir))


def _sentinel(config: Any, *, asks: bool) -> Iterator[dict[str, Any]]:
    """The image that holds a job's folders: without it no container is ever made."""
    from containers.engine import ContainerEngine
    from node.host.placeholders import SENTINEL_CURE

    digest = config.engine.sentinel
    if asks and not is_placeholder(digest):
        try:
            held = ContainerEngine(config.engine.socket).image(digest) is not None
        except NotNow as error:
            yield finding("sentinel image", "missing", error.message, _ENGINE_CURE)
            return
        if held:
            yield finding("sentinel image", "ok", digest)
        else:
            yield finding("sentinel image", "missing", "not in the engine", SENTINEL_CURE)


def _engine(config: Any) -> dict[str, Any]:
    from containers.engine import ContainerEngine

    address = config.engine.socket.removeprefix("unix://")
    try:
        Path(address).stat()
    except PermissionError:
        return finding("engine", "unknown", f"this user may not look at {address}")
    except OSError:
        return finding("engine", "missing", f"there is none at {address}", _ENGINE_CURE)
    if not os.access(address, os.W_OK):
        return finding("engine", "unknown", f"{address} is not open to this user; the broker must be able to use it")
    try:
        facts = ContainerEngine(config.engine.socket).facts(config.engine.runtime or "")
    except NotNow as error:
        return finding("engine", "missing", error.message, _ENGINE_CURE)
    facts["runtime"] = facts["runtime"].partition(" [")[0]  # its name, without the options it was registered with
    return finding("engine", "ok", ", ".join(f"{name} {value}" for name, value in facts.items() if len(value) < 40))

"""Taking an installation away: every change that was made for it, the newest first, and a word about what stays.

With the data kept, the state folder, the configuration and the users whose files those are stay. With the data
destroyed, keys are overwritten before they go, and a record says what was destroyed. It is safe to run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import layout
from .changes import write_whole
from .databases import state_is_known
from .journal import Installed, Made, record, take_back
from .machine import Machine
from .talk import BROKEN, Fault, say

_RECORDS = "/var/log"
_KEY_FOLDERS = {"keys", "pki"}
_KEY_SUFFIXES = {".key", ".pem"}
_PUBLIC_SUFFIXES = {".toml", ".pub", ".crt"}
_MAX_KEY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20


def uninstall(machine: Machine, installed: Installed, *, destroy: bool, dry: bool) -> None:
    """Take everything away. Raises `Fault` before anything went where the services do not stop, and after all else went
    where something could not be taken back: the account of that stays, for another run."""
    if destroy:
        state_is_known(machine, installed.role)
    going = [
        _whole(each) if destroy else each
        for each in installed.made
        if (destroy or not _is_data(each)) and each.change.kind != "packages"
    ]
    if dry:
        for each in reversed(going):
            say(f"would take back: {each.change.describe()}")
        say(f"would {'destroy' if destroy else 'leave'} {layout.STATE} and {layout.CONFIGURATION}")
        return
    _stop(machine, installed)
    if destroy and any(machine.at(each).exists() for each in (layout.STATE, layout.CONFIGURATION)):
        say(f"destroyed; the record is {_destroy(machine, installed)}")
    failed = take_back(machine, going)
    if failed:
        kept = {each.change.key for each in failed} | {each.change.key for each in installed.made if _is_data(each)}
        made = tuple(each for each in installed.made if each.change.key in kept)
        record(replace(installed, made=made)).apply(machine)
    _clear(machine, destroy=destroy, account=bool(failed))
    left = list(_left(machine, installed))
    for line in left:
        say(f"left: {line}")
    if failed:
        raise Fault(
            f"not taken back: {failed[0].change.describe()}" + (f", and {len(failed) - 1} more" * (len(failed) > 1)),
            "see the warnings above; then uninstall again, with the install.sh of a bundle or checkout",
        )
    say("uninstalled" + ("" if left else "; nothing is left but what systemd's journal and the engine keep"))


def _is_data(made: Made) -> bool:
    path, kind = made.change.path, made.change.kind
    return path.startswith((layout.STATE, layout.CONFIGURATION)) or kind == "users"


def _whole(made: Made) -> Made:
    """With the data go all of our users: those that an installation before this one made, and left, as well."""
    if made.change.kind != "users":
        return made
    plain = made.change.plain()
    return Made(made.change, {
        name: [*dict.fromkeys([*made.before[name], *(each for each in plain[name] if each.startswith("cloister-"))])]
        for name in ("users", "groups")
    })  # fmt: skip


def _stop(machine: Machine, installed: Installed) -> None:
    for each in installed.made:
        if each.change.kind == "started":
            units = [Path(other.change.path).name for other in installed.made if other.change.path.endswith(".service")]
            machine.run(["systemctl", "disable", each.change.path])
            answer = machine.run(["systemctl", "stop", each.change.path, *units], timeout_s=180.0)
            if not answer.done and machine.run(["systemctl", "is-active", each.change.path]).done:
                raise Fault(f"{each.change.path} does not stop: {answer.said}", "nothing was taken away yet")


def _destroy(machine: Machine, installed: Installed) -> str:
    """Overwrite every key, remove the state folder, and write down what was there.

    The record is begun before the first key goes and finished after the last: a run that was cut off between goes on
    with the record of the one before. Raises `Fault` where there is a state folder and no key in it.
    """
    state = machine.at(layout.STATE)
    written, told = _begun(machine) or _begin(state, installed)
    keys = sorted({*_keys(state), *_secrets(machine.at(layout.CONFIGURATION))})
    known = {each["path"] for each in told["keys"]}
    found = [{"path": f"/{path.relative_to(machine.root)}", "bytes": path.lstat().st_size} for path in keys]
    told["keys"] += [each for each in found if each["path"] not in known]
    if not told["keys"] and machine.at(layout.state(installed.role)).exists():
        raise Fault(f"no key was found below {layout.STATE}", "nothing was destroyed; the services are stopped", BROKEN)
    _write(machine, written, told)
    for path in keys:
        _shred(path)
    told["audit_sha256"] = _digest(state / installed.role / "audit")
    told["destroyed"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _write(machine, written, told)
    for each in (layout.state(installed.role), layout.COPIES):
        shutil.rmtree(machine.at(each), ignore_errors=True)
    return written


def _begun(machine: Machine) -> tuple[str, dict[str, Any]] | None:
    """The record of a destruction that was cut off, and where it lies."""
    for path in sorted(machine.at(_RECORDS).glob("cloister-destruction-*.json")):
        with contextlib.suppress(ValueError):
            told = json.loads(path.read_bytes())
            if "destroyed" not in told:
                return f"{_RECORDS}/{path.name}", told
    return None


def _begin(state: Path, installed: Installed) -> tuple[str, dict[str, Any]]:
    """What a later reader needs to match the destruction with what others still hold of this site."""
    sizes = [size for each in state.rglob("*") if (size := _size(each)) is not None]
    begun = time.gmtime()
    return f"{_RECORDS}/cloister-destruction-{time.strftime('%Y%m%dT%H%M%SZ', begun)}.json", {
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", begun),
        "role": installed.role,
        "version": installed.version,
        "by": os.environ.get("SUDO_USER") or "root",
        "state_dir": layout.state(installed.role),
        "files": len(sizes),
        "bytes": sum(sizes),
        "keys": [],
        "note": "keys were overwritten in place; a disk that copies on write, or wears evenly, may keep old blocks",
    }


def _write(machine: Machine, written: str, told: dict[str, Any]) -> None:
    machine.at(_RECORDS).mkdir(parents=True, exist_ok=True)
    write_whole(machine.at(written), (json.dumps(told, indent=1) + "\n").encode(), 0o600)


def _size(path: Path) -> int | None:
    """How long a regular file is; None for anything else."""
    found = path.lstat()
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _digest(folder: Path) -> str:
    """One hash over the regular files of a folder. What else a process put there has no part in it."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if _size(path) is None:
            continue
        digest.update(path.name.encode("utf-8", "surrogateescape"))
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def _keys(state: Path) -> Iterator[Path]:
    for path in state.rglob("*"):
        size = _size(path)
        if size is None or size > _MAX_KEY_BYTES:
            continue
        inside = {each.name for each in path.relative_to(state).parents}
        if path.suffix != ".pub" and (inside & _KEY_FOLDERS or path.suffix in _KEY_SUFFIXES):
            yield path


def _secrets(configuration: Path) -> Iterator[Path]:
    """What lies beside the configuration and is no configuration: a database's address with its password, a key."""
    for path in configuration.rglob("*"):
        size = _size(path)
        if size is not None and size <= _MAX_KEY_BYTES and path.suffix not in _PUBLIC_SUFFIXES:
            yield path


def _shred(path: Path) -> None:
    left = path.lstat().st_size
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        while left:
            left -= os.write(handle, secrets.token_bytes(left))
        os.fsync(handle)
    finally:
        os.close(handle)
    path.unlink()


def _clear(machine: Machine, *, destroy: bool, account: bool) -> None:
    """What no single change made: our own folder, but for an account that stays, and, with the data, what it held."""
    for path in machine.at(layout.HOME).glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif not (account and path == machine.at(layout.INSTALLED)):
            path.unlink()
    if not account:
        shutil.rmtree(machine.at(layout.HOME), ignore_errors=True)
    for each in (layout.CONFIGURATION, layout.STATE) if destroy else ():
        shutil.rmtree(machine.at(each), ignore_errors=True)


def _left(machine: Machine, installed: Installed) -> Iterator[str]:
    """What is still there, and why."""
    for each in (layout.state(installed.role), layout.COPIES, layout.CONFIGURATION):
        if machine.at(each).exists():
            size = sum(path.stat().st_size for path in machine.at(each).rglob("*") if path.is_file())
            yield f"{each} ({size >> 20} MB)"
    for made in installed.made:
        if made.change.kind == "packages":
            yield f"the Debian packages {', '.join(made.before['packages'])}: others may use them"
    for name in sorted(each for each in machine.accounts() if each.startswith("cloister-")):
        yield f"the user {name}"
    for folder in (layout.UNITS, "/etc/tmpfiles.d", "/etc/sysusers.d", "/etc/logrotate.d"):
        for path in sorted(machine.at(folder).glob("cloister-*")):
            yield f"{folder}/{path.name}"
    for path in sorted(machine.at(_RECORDS).glob("cloister-destruction-*.json")):
        yield f"{_RECORDS}/{path.name}"

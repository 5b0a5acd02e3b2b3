"""Taking an installation away: every change that was made for it, the newest first, and a word about what stays.

With the data kept, the state folder, the configuration and the users whose files those are stay. With the data
destroyed, keys are overwritten before they go, and a record says what was destroyed. It is safe to run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import layout
from .changes import write_whole
from .journal import Installed, Made, take_back
from .machine import Machine
from .talk import Fault, say

_RECORDS = "/var/log"
_KEY_FOLDERS = {"keys", "pki"}
_KEY_SUFFIXES = {".key", ".pem"}
_MAX_KEY_BYTES = 1 << 20


def uninstall(machine: Machine, installed: Installed, *, destroy: bool, dry: bool) -> None:
    """Take everything away. Raises `Fault` before anything went where the services do not stop."""
    going = [each for each in installed.made if (destroy or not _is_data(each)) and each.change.kind != "packages"]
    if dry:
        for each in reversed(going):
            say(f"would take back: {each.change.describe()}")
        say(f"would {'destroy' if destroy else 'leave'} {layout.STATE} and {layout.CONFIGURATION}")
        return
    _stop(machine, installed)
    if destroy:
        say(f"destroyed; the record is {_destroy(machine, installed)}")
    take_back(machine, going)
    _clear(machine, destroy=destroy)
    left = list(_left(machine, installed))
    for line in left:
        say(f"left: {line}")
    say("uninstalled" + ("" if left else "; nothing is left but what systemd's journal and the engine keep"))


def _is_data(made: Made) -> bool:
    path, kind = made.change.path, made.change.kind
    return path.startswith((layout.STATE, layout.CONFIGURATION)) or kind == "users"


def _stop(machine: Machine, installed: Installed) -> None:
    for each in installed.made:
        if each.change.kind == "started":
            units = [Path(other.change.path).name for other in installed.made if other.change.path.endswith(".service")]
            machine.run(["systemctl", "disable", each.change.path])
            answer = machine.run(["systemctl", "stop", each.change.path, *units], timeout_s=180.0)
            if not answer.done and machine.run(["systemctl", "is-active", each.change.path]).done:
                raise Fault(f"{each.change.path} does not stop: {answer.said}", "nothing was taken away yet")


def _destroy(machine: Machine, installed: Installed) -> str:
    """Overwrite every key, remove the state folder, and write down what was there."""
    state = machine.at(layout.STATE)
    record = _account(state, installed)
    keys = []
    for path in sorted(_keys(state)):
        keys.append({"path": f"{layout.STATE}/{path.relative_to(state)}", "bytes": path.stat().st_size})
        _shred(path)
    record["keys"] = keys
    record["note"] = "keys were overwritten in place; a disk that copies on write, or wears evenly, may keep old blocks"
    written = f"{_RECORDS}/cloister-destruction-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    machine.at(_RECORDS).mkdir(parents=True, exist_ok=True)
    write_whole(machine.at(written), (json.dumps(record, indent=1) + "\n").encode(), 0o600)
    for each in (layout.state(installed.role), layout.COPIES):
        shutil.rmtree(machine.at(each), ignore_errors=True)
    return written


def _account(state: Path, installed: Installed) -> dict[str, Any]:
    """What a later reader needs to match the destruction with what others still hold of this site."""
    files = [each for each in state.rglob("*") if each.is_file() and not each.is_symlink()]
    audit = hashlib.sha256()
    for each in sorted((state / installed.role / "audit").glob("*")):
        audit.update(each.name.encode() + each.read_bytes())
    return {
        "destroyed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "role": installed.role,
        "version": installed.version,
        "by": os.environ.get("SUDO_USER") or "root",
        "state_dir": layout.state(installed.role),
        "files": len(files),
        "bytes": sum(each.stat().st_size for each in files),
        "audit_sha256": audit.hexdigest(),
    }


def _keys(state: Path) -> Iterator[Path]:
    for path in state.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_KEY_BYTES:
            continue
        inside = {each.name for each in path.relative_to(state).parents}
        if path.suffix != ".pub" and (inside & _KEY_FOLDERS or path.suffix in _KEY_SUFFIXES):
            yield path


def _shred(path: Path) -> None:
    size = path.stat().st_size
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.write(handle, secrets.token_bytes(size))
        os.fsync(handle)
    finally:
        os.close(handle)
    path.unlink()


def _clear(machine: Machine, *, destroy: bool) -> None:
    """What no single change made: our own folder, and, with the data, what it held."""
    for each in (layout.HOME, *((layout.CONFIGURATION, layout.STATE) if destroy else ())):
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

"""Units, users and folders as the version that is installed makes them: `cloister node units`, `cloister hub units`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .machine import Machine
from .talk import USAGE, Fault, say

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class UnitFile:
    path: str
    mode: int
    text: str


@dataclass(frozen=True)
class Units:
    """What a version wants of systemd."""

    target: str
    services: tuple[str, ...]
    files: tuple[UnitFile, ...]
    users: tuple[str, ...]
    groups: tuple[str, ...]
    firewall: tuple[str, ...]

    def file(self, folder: str) -> str | None:
        """The file of such a folder (`sysusers.d`), if there is one."""
        return next((each.path for each in self.files if Path(each.path).parent.name == folder), None)


def units_of(machine: Machine, role: layout.Role, program: Path, config: Path) -> Units:
    """Ask a version for its units. Raises `Fault`, with the product's own words where it refuses the configuration."""
    python = machine.at(layout.CURRENT) / "venv" / "bin" / "python"
    answer = machine.run(
        [program, role, "units", "--config", config, "--python", python, "--json"], timeout_s=_TIMEOUT_S
    )
    if answer.code == USAGE:
        raise Fault(f"{config} is refused: {answer.said}", "mend it, or move it away to be asked again", USAGE)
    if not answer.done:
        raise Fault(f"the version that is installed made no units: {answer.said}", "", answer.code)
    for line in answer.err.splitlines():
        say(line)  # what the units leave out, and why: nobody else would say it
    plain = json.loads(answer.out)
    files = tuple(UnitFile(each["path"], _mode(each["mode"]), each["text"]) for each in plain["files"])
    # whom systemd-sysusers will make: its own file says it, jobs' user and the groups of staff included
    lines = [
        line.split() for each in files if Path(each.path).parent.name == "sysusers.d" for line in each.text.splitlines()
    ]
    users = dict.fromkeys(words[1] for words in lines if words and words[0] == "u")
    groups = dict.fromkeys(words[1] for words in lines if words and words[0] == "g" and words[1] not in users)
    firewall = tuple(_firewall_line(each) for each in plain["firewall"])
    return Units(plain["target"], tuple(plain["units"]), files, tuple(users), tuple(groups), firewall)


def _mode(value: int | str) -> int:
    return int(value, 8) if isinstance(value, str) else value


def _firewall_line(row: dict[str, object]) -> str:
    where = f"{row['host']}:{row['port']}"
    return f"{row['direction']:3} {row['protocol']} {where} ({row['process']}: {row['why']})"

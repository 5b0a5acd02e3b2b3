"""Where everything of an installation lies."""

from __future__ import annotations

from typing import Literal

Role = Literal["node", "hub"]
ROLES: tuple[Role, ...] = ("node", "hub")

HOME = "/opt/cloister"
CURRENT = f"{HOME}/current"
INSTALLED = f"{HOME}/installed.json"
JOURNAL = f"{HOME}/journal.jsonl"
# both where root alone makes files: in /run/lock or /var/tmp, anybody could stand in the way
LOCK = "/run/cloister-install.lock"
WORK = "/opt/.cloister-install"
CONFIGURATION = "/etc/cloister"
STATE = "/var/lib/cloister"
COPIES = f"{STATE}/before-upgrade"
COMMAND = "/usr/local/bin/cloister"
UNITS = "/etc/systemd/system"
SYSCTL = "/etc/sysctl.d/60-cloister.conf"


def version_folder(version: str) -> str:
    return f"{HOME}/{version}"


def program(version: str) -> str:
    """The command of a version."""
    return f"{HOME}/{version}/venv/bin/cloister"


def configuration(role: Role) -> str:
    return f"{CONFIGURATION}/{role}.toml"


def state(role: Role) -> str:
    return f"{STATE}/{role}"


def database(role: Role) -> str:
    return f"{STATE}/node/core/node.db" if role == "node" else f"{STATE}/hub/hub.db"

"""What kind of engine answers: whose it is, and what a job's group is outside its containers.

The rules are `containers.engine`'s, without the product. A rootless engine is its user's alone: the broker runs as that
user, since nobody else reaches the socket, and the engine reaches no other's `work` folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .engine import Engine
from .machine import Machine

# the group of jobs inside their containers (`[users] job_gid`)
JOB_GROUP = 65532
_NEEDED = frozenset({"cpu", "memory", "pids"})

Row = tuple[str, str, str, str]


@dataclass(frozen=True)
class EngineKind:
    """`user` and `uid`: whose a rootless engine is, else "" and 0. `job_group`: what a job's group is outside its
    containers, None where nobody tells. `lacks`: what it cannot bound a container by."""

    name: str
    version: str
    info: Mapping[str, Any]
    rootless: bool = False
    user: str = ""
    uid: int = 0
    job_group: int | None = JOB_GROUP
    lacks: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())


def kind_of(machine: Machine, url: str) -> EngineKind | None:
    """What answers behind a socket; None where nothing does."""
    engine = Engine(machine, url)
    version = engine.ask("/version")
    if not version:
        return None
    info = engine.ask("/info")
    name = "podman" if "podman" in str(version.get("Components", [])).lower() else "docker"
    told = str(version.get("Version", "0"))
    options = {part for text in info.get("SecurityOptions") or [] for part in str(text).split(",")}
    if not (info.get("Rootless") or {"name=rootless", "rootless"} & options):
        return EngineKind(name, told, info, job_group=_remapped(info, options) + JOB_GROUP)
    uid = machine.at(url.removeprefix("unix://")).stat().st_uid
    user = _name_of(machine, uid)
    host = engine.ask("/v4.0.0/libpod/info").get("host") or {}
    mapped = (host.get("idMappings") or {}).get("gidmap") or _from_subgid(machine, user)
    return EngineKind(name, told, info, True, user, uid, _outside(mapped), _lacks(info, host))


def _remapped(info: Mapping[str, Any], options: set[str]) -> int:
    """The group that a container's 0 is outside: dockerd names a remapped engine's folder after it."""
    found = re.search(r"/[0-9]+\.([0-9]+)$", str(info.get("DockerRootDir")))
    return int(found[1]) if found and "name=userns" in options else 0


def _name_of(machine: Machine, uid: int) -> str:
    lines = (line.split(":") for line in machine.text("/etc/passwd").splitlines())
    return next((words[0] for words in lines if len(words) > 3 and words[2] == str(uid)), "")


def _from_subgid(machine: Machine, user: str) -> list[dict[str, int]]:
    """How a rootless engine that does not tell maps its groups: its user's own is 0, and the first range follows."""
    for line in machine.text("/etc/subgid").splitlines():
        words = line.split(":")
        if words[0] == user and len(words) == 3 and words[1].isdecimal() and words[2].isdecimal():
            return [{"container_id": 1, "host_id": int(words[1]), "size": int(words[2])}]
    return []


def _outside(mapped: list[dict[str, Any]]) -> int | None:
    for each in mapped:
        inside = int(each["container_id"])
        if inside <= JOB_GROUP < inside + int(each["size"]):
            return int(each["host_id"]) + JOB_GROUP - inside
    return None


def _lacks(info: Mapping[str, Any], host: Mapping[str, Any]) -> tuple[str, ...]:
    """What systemd does not let this user bound: on cgroup version 1 nothing, on version 2 what it delegates."""
    if str(info.get("CgroupVersion")) != "2" or info.get("CgroupDriver") == "none":
        return tuple(sorted(_NEEDED))
    if "cgroupControllers" in host:
        return tuple(sorted(_NEEDED - set(host["cgroupControllers"] or ())))
    named = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CPUCfsQuota"}
    return tuple(sorted(each for each, key in named.items() if not info.get(key)))


def rootless(machine: Machine, kind: EngineKind) -> Iterator[Row]:
    """(what, state, detail, cure) of an engine that is no root."""
    if not kind.rootless:
        return
    yield _limits(kind)
    yield _whose(machine, kind)
    if kind.name == "podman":
        # seen with 4.3: asked by Docker's call, it puts no ulimit in force (adr/0042)
        detail = "no job starts on a rootless podman: it drops the ulimits that a job is sealed by"
        yield (
            "engine's containers",
            "failed",
            detail,
            "an engine that is root: apt-get install docker.io; deploy/docs/sandbox.md says which are tried",
        )


def _limits(kind: EngineKind) -> Row:
    what = "engine's limits"
    if str(kind.info.get("CgroupVersion")) != "2":
        cure = "boot with systemd.unified_cgroup_hierarchy=1, or take an engine that is root"
        return (what, "failed", "a rootless engine bounds nothing on cgroup version 1", cure)
    if kind.lacks:
        cure = "[Service] Delegate=cpu memory pids in a file in /etc/systemd/system/user@.service.d, then a reboot"
        return (what, "failed", f"{kind.user} may not bound {', '.join(kind.lacks)}", cure)
    return (what, "ok", "cpu, memory and pids are bounded by cgroup version 2", "")


def _whose(machine: Machine, kind: EngineKind) -> Row:
    what, user = "engine's user", kind.user
    if not user or kind.uid == 0:
        return (what, "failed", f"its socket is of user {kind.uid}, who is nobody's own", "run it as a user of its own")
    if kind.job_group is None:
        cure = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}, then podman system migrate"
        return (what, "failed", f"{user} has no group for jobs in /etc/subgid", cure)
    if not machine.at(f"/var/lib/systemd/linger/{user}").exists():
        cure = f"loginctl enable-linger {user}, and systemctl --user enable podman.socket as that user"
        return (what, "warning", f"the engine ends when {user} logs out", cure)
    return (what, "ok", f"{user}; the broker runs as that user, jobs read as group {kind.job_group}", "")


def others(machine: Machine) -> str | None:
    """The socket of a user's own engine, if one answers: never taken by itself, since it is somebody's."""
    for pattern in ("*/podman/podman.sock", "*/docker.sock"):
        for path in sorted(machine.at("/run/user").glob(pattern)):
            url = f"unix:///{path.relative_to(machine.root)}"
            if Engine(machine, url).ask("/version"):
                return url
    return None

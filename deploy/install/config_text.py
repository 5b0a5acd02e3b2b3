"""The configuration that an installation writes: what was answered, what the machine has, and no placeholder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import layout
from .engine_kinds import JOB_GROUP, kind_of
from .gpus import Gpu, has_driver, listed, ways
from .machine import Machine
from .questions import Answers, host_and_port

_GIB = 1 << 30


@dataclass(frozen=True)
class Facts:
    """What a configuration takes from the machine. `engine_user`: whose a rootless engine is; `job_group`: what a job's
    group is outside its containers, where that is another number."""

    cpus: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    engine_user: str = ""
    job_group: int | None = None


def facts(machine: Machine, engine: str = "") -> Facts:
    """`engine`: the socket of the one that jobs run on. Of the GPUs, those that it gives."""
    words = (line.split() for line in machine.text("/proc/meminfo").splitlines())
    total = next((int(line[1]) * 1024 for line in words if line and line[0] == "MemTotal:"), 4 * _GIB)
    kind = kind_of(machine, engine) if engine else None
    gpus: tuple[Gpu, ...] = ()
    if kind is not None and has_driver(machine):
        gpus = ways(machine, listed(machine)[0], kind.info, kind.name).gpus
    user = kind.user if kind and kind.rootless else ""
    job_group = kind.job_group if kind and kind.job_group != JOB_GROUP else None
    return Facts(len(os.sched_getaffinity(0)), total, gpus, user, job_group)


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(_text(each) for each in texts) + "]"


def _text(text: str) -> str:
    """A TOML basic string: JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)


def node_toml(answers: Answers, found: Facts, engine: str, sentinel: str, state_dir: str) -> str:
    """A node's configuration. What it does not say has the default that `cloister config explain` tells."""
    host, port = host_and_port(answers["hub"][0])
    cpus = max(1, found.cpus - 1) if found.cpus > 1 else 1
    # half: beside a job the node itself, its de-identification and the system have to live
    memory = max(1, found.memory_bytes // 2 // _GIB) * _GIB
    workers = max(1, min(4, found.cpus // 2, found.memory_bytes // (4 * _GIB)))
    lines = [
        "# Written by install.sh. `cloister config explain` tells every key; what is not here has its default.",
        "# After a change: systemctl restart cloister-node.target",
        f"site = {_text(answers['site'][0])}",
        f"state_dir = {_text(state_dir)}",
        "",
        "[hub]",
        f"host = {_text(host)}",
        f"port = {port}",
        "",
        "[trust]",
        f"committee = {_list(answers['committee_key'])}",
        f"stewards = {_list(answers['steward_key'])}",
        f"hub = {_list(answers.get('hub_key', ()))}",
        f"witnesses = {_list(answers.get('witness_key', ()))}",
        "",
        "[users]",
        *(f"{role} = {_text(_user(role, found))}" for role in ("core", "intake", "broker", "link")),
        "",
        "[engine]",
        f"socket = {_text(engine)}",
        f"sentinel = {_text(sentinel)}",
        *(() if found.job_group is None else (f"job_group = {found.job_group}",)),
        "",
        "[limits]",
        f"cpus = {cpus}.0",
        f"memory_bytes = {memory}",
        f"gpus = {len(found.gpus)}",
        "",
        "[intake]",
        f"source_roots = {_list(answers['source_root'])}",
        f"workers = {workers}",
        "",
        "[schedule]",
        f"concurrent_jobs = {max(1, min(4, found.memory_bytes // memory))}",
    ]
    for gpu in found.gpus:
        lines += ["", "[[schedule.gpus]]", f"id = {_text(gpu.id)}", f"memory_bytes = {gpu.memory_bytes}"]
    return "\n".join(lines) + "\n"


def _user(process: str, found: Facts) -> str:
    # a rootless engine mounts for jobs what its own user may reach, and answers nobody else
    return found.engine_user if process == "broker" and found.engine_user else f"cloister-{process}"


def hub_toml(answers: Answers, state_dir: str) -> str:
    lines = [
        "# Written by install.sh. After a change: systemctl restart cloister-hub.target",
        "version = 1",
        f"name = {_text(answers['name'][0])}",
        f"state_dir = {_text(state_dir)}",
        "",
        "[ingress]",
        f"listen = {_text(answers['listen'][0])}",
        f"port = {answers['port'][0]}",
        f"hosts = {_list(answers['host'])}",
        "",
        "[trust]",
        f"committee_keys = {_list(answers['committee_key'])}",
    ]
    return "\n".join(lines) + "\n"


def answered(role: layout.Role, plain: Mapping[str, Any]) -> Answers:
    """What a configuration says to the questions, as far as it says it: the way back from `text`."""

    def at(section: str, key: str) -> tuple[str, ...]:
        part = plain.get(section)
        value = part.get(key) if isinstance(part, Mapping) else None
        return () if value is None else tuple(map(str, value)) if isinstance(value, list) else (str(value),)

    keys = _NODE_SAYS if role == "node" else _HUB_SAYS
    found = {name: at(section, key) for name, (section, key) in keys.items()}
    name = "site" if role == "node" else "name"
    found[name] = (str(plain[name]),) if name in plain else ()
    if role == "node" and (host := at("hub", "host")) and (port := at("hub", "port")):
        found["hub"] = (f"[{host[0]}]:{port[0]}" if ":" in host[0] else f"{host[0]}:{port[0]}",)
    return {name: values for name, values in found.items() if values}


# question -> section and key
_NODE_SAYS = {
    "hub_key": ("trust", "hub"), "witness_key": ("trust", "witnesses"), "committee_key": ("trust", "committee"),
    "steward_key": ("trust", "stewards"), "source_root": ("intake", "source_roots"), "engine": ("engine", "socket"),
    "sentinel": ("engine", "sentinel"),
}  # fmt: skip
_HUB_SAYS = {
    "host": ("ingress", "hosts"), "port": ("ingress", "port"), "listen": ("ingress", "listen"),
    "committee_key": ("trust", "committee_keys"),
}  # fmt: skip


def text(role: layout.Role, machine: Machine, answers: Answers, engine: str, sentinel: str) -> str:
    state_dir = str(machine.at(layout.state(role)))
    if role == "hub":
        return hub_toml(answers, state_dir)
    return node_toml(answers, facts(machine, engine), engine, sentinel, state_dir)

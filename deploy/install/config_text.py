"""The configuration that an installation writes: what was answered, what the machine has, and no placeholder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

from . import layout
from .machine import Machine
from .questions import Answers, host_and_port

_GIB = 1 << 30
# of what `nvidia-smi` counts a job can have nearly all; the driver keeps the rest
_GPU_SHARE = 0.98


@dataclass(frozen=True)
class Gpu:
    id: str
    memory_bytes: int


@dataclass(frozen=True)
class Facts:
    """What a configuration takes from the machine."""

    cpus: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()


def facts(machine: Machine) -> Facts:
    words = (line.split() for line in machine.text("/proc/meminfo").splitlines())
    total = next((int(line[1]) * 1024 for line in words if line and line[0] == "MemTotal:"), 4 * _GIB)
    return Facts(len(os.sched_getaffinity(0)), total, tuple(_gpus(machine)))


def _gpus(machine: Machine) -> Iterable[Gpu]:
    answer = machine.run(["nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"])
    if not answer.done:
        return
    for line in answer.out.splitlines():
        name, _comma, size = (part.strip() for part in line.partition(","))
        if name.startswith("GPU-") and size.isdecimal():
            whole = int(int(size) * (1 << 20) * _GPU_SHARE) // _GIB
            yield Gpu(name, whole * _GIB or int(size) * (1 << 20))


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
        *(f'{role} = "cloister-{role}"' for role in ("core", "intake", "broker", "link")),
        "",
        "[engine]",
        f"socket = {_text(engine)}",
        f"sentinel = {_text(sentinel)}",
        "",
        "[limits]",
        f"cpus = {cpus}.0",
        f"memory_bytes = {memory}",
        f"gpus = {len(found.gpus)}",
        "",
        "[intake]",
        f"source_roots = {_list(answers['source_root'])}",
        f"workers = {workers}",
    ]
    for gpu in found.gpus:
        lines += ["", "[[schedule.gpus]]", f"id = {_text(gpu.id)}", f"memory_bytes = {gpu.memory_bytes}"]
    return "\n".join(lines) + "\n"


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


def text(role: layout.Role, machine: Machine, answers: Answers, engine: str, sentinel: str) -> str:
    state_dir = str(machine.at(layout.state(role)))
    if role == "hub":
        return hub_toml(answers, state_dir)
    return node_toml(answers, facts(machine), engine, sentinel, state_dir)

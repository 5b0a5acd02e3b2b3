"""Which GPUs a machine has, and whether its engine can give them: what the node decides for each container, beforehand.

The rules are `containers.gpu.decide`'s, without the product; a test holds the two against one another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import Machine

_GIB = 1 << 30
# of what `nvidia-smi` counts a job can have nearly all; the driver keeps the rest
_SHARE = 0.98
_PODMANS_FOLDERS = ("/etc/cdi", "/var/run/cdi")
_PODMAN_SINCE = (5, 4)
_MAX_SPEC_BYTES = 4 << 20
ASKED = "uuid,memory.total,mig.mode.current"
_GENERATE = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


@dataclass(frozen=True)
class Gpu:
    id: str
    memory_bytes: int


@dataclass(frozen=True)
class Ways:
    """What of these GPUs an engine gives, and how; `lacks` and `cure` where it gives none or not all."""

    gpus: tuple[Gpu, ...]
    how: str = ""
    lacks: str = ""
    cure: str = ""


def has_driver(machine: Machine) -> bool:
    return machine.at("/proc/driver/nvidia/version").exists() or machine.program("nvidia-smi") is not None


def listed(machine: Machine) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that the driver names with their memory, and what it said where it names none."""
    answer = machine.run(["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader,nounits"])
    if not answer.done:
        return (), answer.said
    found, said = [], "it names none with its memory"
    for line in answer.out.splitlines():
        name, size, sliced = [part.strip() for part in [*line.split(","), "", ""][:3]]
        if not name.startswith("GPU-") or not size.isdecimal():
            continue
        if sliced == "Enabled":  # nobody computes on the whole of it
            said = f"{name} is cut in slices (MIG): name them in [[schedule.gpus]]"
            continue
        whole = int(int(size) * (1 << 20) * _SHARE) // _GIB
        found.append(Gpu(name, whole * _GIB or int(size) * (1 << 20)))
    return tuple(found), "" if found else said


def ways(machine: Machine, gpus: tuple[Gpu, ...], info: Mapping[str, Any], kind: str, runtime: str = "") -> Ways:
    """How an engine that says this of itself (`/info`) gives these GPUs, where containers run on `runtime`.

    1. On gVisor's kernel no job has a GPU.
    2. Where every container runs on NVIDIA's runtime, that gives them.
    3. By CDI, if the engine has it: those that a spec of it names. A node may name no others: one that its engine
       cannot give fails the canary, and with that every job.
    4. By NVIDIA's runtime, if the engine has it and CDI does not know them all.
    """
    version = str(info.get("ServerVersion") or info.get("Version") or "")
    classic = kind == "docker" and "nvidia" in (info.get("Runtimes") or {})
    if runtime.startswith("runsc"):  # (1)
        return Ways((), lacks="not on gVisor's kernel", cure='take runtime = "runsc" out of [engine], or the GPUs')
    if runtime == "nvidia" and classic:  # (2)
        return Ways(gpus, "by the runtime nvidia")
    folders = _folders(info, kind, version)
    known = _known(machine, gpus, info if kind == "docker" else {}, folders)
    if folders and len(known) == len(gpus):  # (3)
        return Ways(gpus, "by CDI")
    if classic and not runtime:  # (4)
        return Ways(gpus, "by the runtime nvidia")
    if folders:
        unnamed = next(each.id for each in gpus if each not in known)
        lacks = f"no CDI spec in {' or '.join(folders)} names {unnamed}"
        return Ways(known, "by CDI" if known else "", lacks, f"after every change of the driver: {_GENERATE}")
    if kind == "podman":
        return Ways((), lacks=f"podman {version} passes over a request for GPUs", cure="podman 5.4 or newer, or docker")
    cure = f'docker 25 or newer: {{"features": {{"cdi": true}}}} in daemon.json, then {_GENERATE}'
    return Ways((), lacks=f"docker {version} has neither CDI nor NVIDIA's runtime", cure=cure)


def _folders(info: Mapping[str, Any], kind: str, version: str) -> tuple[str, ...]:
    """Where the engine looks for CDI specs; none where it has no CDI."""
    if kind == "podman":  # it does not say, and before this version it passes over a request
        since = re.match(r"(\d+)\.(\d+)", version)
        return _PODMANS_FOLDERS if since and (int(since[1]), int(since[2])) >= _PODMAN_SINCE else ()
    return tuple(str(each) for each in info.get("CDISpecDirs") or ())


def _known(
    machine: Machine, gpus: tuple[Gpu, ...], info: Mapping[str, Any], folders: tuple[str, ...]
) -> tuple[Gpu, ...]:
    discovered = info.get("DiscoveredDevices")
    if discovered is not None:
        names = {str(each.get("ID")) for each in discovered}
        return tuple(each for each in gpus if f"nvidia.com/gpu={each.id}" in names)
    texts = [_read(path) for folder in folders for path in _specs(machine.at(folder))]
    if None in texts:  # what nobody can look up counts as known: the engine says so at the start
        return gpus
    return tuple(each for each in gpus if any(_names(text or b"", each.id) for text in texts))


def _specs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml"))


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SPEC_BYTES)
    except OSError:
        return None
    return text if 0 < len(text) < _MAX_SPEC_BYTES else None


def _names(text: bytes, gpu: str) -> bool:
    # a UUID stands nowhere by chance, so YAML and JSON need not be told apart
    return re.search(rb"(?<![\w/-])" + re.escape(gpu.encode()) + rb"(?![\w/-])", text) is not None

"""What `cloister check` says of the machine: whether it has the processors and GPUs that the configuration promises."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from typing import Any

from mediator.errors import Denied, NotNow
from node.cli.it.check_config import finding
from node.host.config import NodeConfig

# it opens the driver, which takes a second or two for each GPU where nothing keeps it open
_DRIVER_S = 30.0
_WORDS = {"cdi": "by CDI", "nvidia": "by NVIDIA's runtime"}


def machine(config: NodeConfig) -> list[dict[str, Any]]:
    """One finding for the processors, one for who may read what a job is shown, and one or two for the GPUs where the
    configuration names any. None where the engine does not answer, of which there is a finding already."""
    from containers.engine import ContainerEngine

    try:
        offer = ContainerEngine(config.engine.socket).offer()
    except NotNow:
        return []
    found = [_processors(config, offer.cpus), _job_data(config, offer.users)]
    if config.schedule.gpus:
        found += [_gpus(config, offer.gpus), *_cards(config)]
    return found


def _processors(config: NodeConfig, there: int) -> dict[str, Any]:
    lent = config.limits.cpus
    if lent <= there:
        return finding("processors", "ok", f"{lent:g} of {there} for one container")
    detail = (
        f"[limits] cpus is {lent:g} and this machine has {there}: a permit that asks for more than {there} is refused"
    )
    return finding("processors", "warning", detail)


def _job_data(config: NodeConfig, users: Any) -> dict[str, Any]:
    """Whether core can give what a job is shown to that job's group alone, as the engine counts it."""
    if not config.users.separate:
        detail = "one user runs every process, and each of them can read it; [users] gives each process its own"
        return finding("job data", "warning", detail)
    there = users.group_outside(config.users.job_gid)
    if there == config.job_group:
        return finding("job data", "ok", f"read by its job's group alone, {there} on this machine")
    cure = "its number stands in /etc/subgid" if there is None else f"write: [engine] job_group = {there}"
    detail = f"no job can read it: a job's group is not {config.job_group} outside this engine's containers ({cure})"
    return finding("job data", "missing", detail)


def _gpus(config: NodeConfig, offer: Any) -> dict[str, Any]:
    """How the engine gives the GPUs that are named, or why not and what to do."""
    from containers import gpu

    ways: Counter[str] = Counter()
    for each in config.schedule.gpus:
        try:
            ways[_WORDS[gpu.decide(offer, (each.id,), config.engine.runtime or "")]] += 1
        except Denied as denied:
            detail = f"{denied.reasons[0].detail} ({denied.hint}); a job that is granted one ends with gpu_unavailable"
            return finding("gpus", "missing", detail)
    said = ", ".join(f"{count} {way}" for way, count in ways.items())
    return finding("gpus", "ok", f"{said}; cloister node canary starts a container with them")


def _cards(config: NodeConfig) -> list[dict[str, Any]]:
    """What the driver says of the GPUs that are named. A slice (MIG-…) it lists in another way: not looked at."""
    program = shutil.which("nvidia-smi")
    named = {each.id: each.memory_bytes for each in config.schedule.gpus if each.id.startswith("GPU-")}
    if program is None or not named:
        return []
    query = [program, "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_DRIVER_S).stdout
        there = {uuid.strip(): int(mib) << 20 for uuid, mib in (line.split(",") for line in answer.splitlines())}
    except (OSError, ValueError, subprocess.SubprocessError):
        return [finding("driver", "missing", "nvidia-smi gives no answer: is the driver whole?")]
    wrong = [f"{uuid} is not in this machine" for uuid in named if uuid not in there]
    if wrong:
        return [finding("driver", "missing", "; ".join(wrong))]
    large = [
        f"{uuid} has {there[uuid]} bytes, [[schedule.gpus]] says {size}: a job that needs as much would fail"
        for uuid, size in named.items()
        if size > there[uuid]
    ]
    return [finding("driver", "warning" if large else "ok", "; ".join(large) or f"{len(named)} found")]

"""What `cloister check` says of the machine: whether it has the processors and GPUs that the configuration promises."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mediator.errors import Denied, NotNow
from node.cli.check_disk import disk
from node.cli.findings import finding
from node.host.config import NodeConfig

# it opens the driver, which takes a second or two for each GPU where nothing keeps it open
_DRIVER_S = 30.0
_WORDS = {"cdi": "by CDI", "nvidia": "by NVIDIA's runtime"}


def machine(config: NodeConfig) -> list[dict[str, Any]]:
    """Findings for processors, memory, what confines containers, who may read what a job is shown, the engine's disk
    and GPUs where any are named. None where the engine does not answer, of which there is a finding already."""
    from containers.engine import ContainerEngine

    try:
        offer = ContainerEngine(config.engine.socket).offer()
    except NotNow:
        return []
    found = [_processors(config, offer.cpus), *_memory(config, offer.memory_bytes)]
    found += [confinement(offer.security), _job_data(config, offer.users)]
    if offer.folder:
        found.append(disk("engine disk", Path(offer.folder), least=config.limits.out_bytes + config.limits.tmp_bytes))
    if config.schedule.gpus:
        found += [_gpus(config, offer.gpus), *_cards(config)]
    return found


def _processors(config: NodeConfig, there: int) -> dict[str, Any]:
    lent = config.limits.cpus
    if lent <= there:
        return finding("processors", "ok", f"{lent:g} of {there} for one container")
    detail = f"[limits] cpus is {lent:g} and this machine has {there}: a permit that asks for more is refused"
    return finding("processors", "warning", detail, f"write [limits] cpus = {float(there):g}")


def _memory(config: NodeConfig, there: int) -> Iterator[dict[str, Any]]:
    """One container must fit; so many as may compute at once should."""
    if not there:
        return
    lent, at_once = config.limits.memory_bytes, config.schedule.concurrent_jobs
    if lent > there:
        detail = f"[limits] memory_bytes is {lent} and this machine has {there}: a job that uses it is killed"
        yield finding("memory", "missing", detail, f"write [limits] memory_bytes = {there // 2} or less")
    elif lent * at_once > there:
        detail = f"{at_once} containers of {lent} bytes may compute at once, and this machine has {there}"
        mend = f"write [schedule] concurrent_jobs = {max(1, there // lent)}, or lower [limits] memory_bytes"
        yield finding("memory", "warning", detail, mend)
    else:
        yield finding("memory", "ok", f"{at_once} containers of {lent} bytes, of {there}")


def confinement(engine: Sequence[str], sys: Path = Path("/sys")) -> dict[str, Any]:
    """What the kernel holds containers by beside namespaces and seccomp, and whether the engine uses it."""
    said = []
    mode = _content(sys / "fs/selinux/enforce")
    if mode is not None:
        said.append(f"SELinux is {'enforcing' if mode == '1' else 'permissive'}")
    if _content(sys / "module/apparmor/parameters/enabled") == "Y":
        said.append("AppArmor is on")
    used = [name for name in ("apparmor", "selinux") if name in engine]
    detail = (
        f"{', '.join(said) or 'neither SELinux nor AppArmor is on'}; the engine uses {' and '.join(used) or 'none'}"
    )
    if "seccomp" not in engine:
        mend = "let the engine use its seccomp profile (a kernel or an engine built without it confines nothing)"
        return finding("confinement", "warning", f"{detail}, and no seccomp", mend)
    if said and not used:
        mend = "Docker: `selinux-enabled` in daemon.json, or the package apparmor; then restart the engine"
        return finding("confinement", "warning", detail, mend)
    return finding("confinement", "ok", f"{detail}, and seccomp")


def _content(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return None


def _job_data(config: NodeConfig, users: Any) -> dict[str, Any]:
    """Whether core can give what a job is shown to that job's group alone, as the engine counts it."""
    if not config.users.separate:
        detail = "one user runs every process, and each of them can read it"
        return finding("job data", "warning", detail, "name a system user for each process in [users]")
    there = users.group_outside(config.users.job_gid)
    if there == config.job_group:
        return finding("job data", "ok", f"read by its job's group alone, {there} on this machine")
    cure = "its number stands in /etc/subgid" if there is None else f"write: [engine] job_group = {there}"
    detail = f"no job can read it: a job's group is not {config.job_group} outside this engine's containers"
    return finding("job data", "missing", detail, cure)


def _gpus(config: NodeConfig, offer: Any) -> dict[str, Any]:
    """How the engine gives the GPUs that are named, or why not and what to do."""
    from containers import gpu

    ways: Counter[str] = Counter()
    for each in config.schedule.gpus:
        try:
            ways[_WORDS[gpu.decide(offer, (each.id,), config.engine.runtime or "")]] += 1
        except Denied as denied:
            detail = f"{denied.reasons[0].detail}; a job that is granted one ends with gpu_unavailable"
            return finding("gpus", "missing", detail, denied.hint or "see deploy/docs/queue.md")
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
        return [finding("driver", "missing", "nvidia-smi gives no answer", "nvidia-smi: is the driver whole?")]
    wrong = [f"{uuid} is not in this machine" for uuid in named if uuid not in there]
    if wrong:
        return [finding("driver", "missing", "; ".join(wrong), "nvidia-smi -L names yours: [[schedule.gpus]]")]
    large = [
        f"{uuid} has {there[uuid]} bytes, [[schedule.gpus]] says {size}: a job that needs as much would fail"
        for uuid, size in named.items()
        if size > there[uuid]
    ]
    if large:
        return [finding("driver", "warning", "; ".join(large), "write at most what the driver says")]
    return [finding("driver", "ok", f"{len(named)} found")]

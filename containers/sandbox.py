"""The sealed container as a value: what we ask the engine for, and whether what it made is that.

`create_arguments` is the one build function: jobs, keepers and the canary come out of it. `unsealed` reads the
engine's own inspect against expectations written out a second time, so that a slip in the first is caught here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from containers import gpu
from mediator import canonical
from mediator.types import ContainerSpec, Resources

Role = Literal["job", "canary", "self_test", "keeper"]

SITE_LABEL, JOB_LABEL, ROLE_LABEL, SPEC_LABEL = "cloister.site", "cloister.job", "cloister.role", "cloister.spec"

SECCOMP = json.dumps(json.loads((resources.files(__package__) / "seccomp.json").read_text()), separators=(",", ":"))
SCRATCH_FLAGS = "rw,noexec,nosuid,nodev"
# A data loader with 16 workers and their pipes opens some hundred files; torch shares each tensor by a descriptor.
OPEN_FILES = 16_384
# A memory file system counts in these, on the machine that the engine and the broker share.
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# gVisor's kernel and its file server start with about 40 threads, and grow with the job's processes.
GVISOR_TASKS, GVISOR_TASKS_EACH = 256, 8
# What a job prints stays in the hospital: enough to find a fault, too little to fill a disk.
LOG_OPTIONS = {"max-size": "2m", "max-file": "2"}
# The keeper reads one file at a time in blocks of 1 MiB.
KEEPER = Resources(
    cpus=1.0, memory_bytes=128 << 20, pids=32, wall_time_s=1, tmp_bytes=1 << 20, out_bytes=1, out_files=1, gpus=0
)
# which GPUs the NVIDIA runtime shows a container, whatever else asks
_VISIBLE = "NVIDIA_VISIBLE_DEVICES"
_PROGRAMS: Mapping[Role, list[str] | None] = {
    "job": None,  # the image's own
    "canary": ["python3", "-I", "/opt/cloister-sentinel/probe.py"],
    # a text of this version's: the sentinel's image may be one from before
    "self_test": ["python3", "-I", "-c", (resources.files(__package__) / "self_test_job.py").read_text()],
    "keeper": ["python3", "-I", "/opt/cloister-sentinel/keeper.py", "watch"],
}


@dataclass(frozen=True)
class SandboxPolicy:
    """What one site decides about its containers, read once from its configuration.

    `sentinel` is the digest of the image that holds the keeper and the canary's probe; `ceiling` the most any
    container may be given; a mount's source lies under `work_root` (jobs) or `probe_root` (the canary).
    `group_outside` is the number by which core gives a job's files to its group, if it can. `gpus_by` is how GPUs are
    asked for, which the broker decides for each container from what the engine offers.
    """

    site: str
    sentinel: str
    ceiling: Resources
    work_root: Path
    probe_root: Path
    uid: int = 65532
    gid: int = 65532
    group_outside: int | None = None
    runtime: str = ""
    gpus_by: gpu.Way = "cdi"

    @property
    def gvisor(self) -> bool:
        """Whether jobs run on gVisor's kernel rather than on the machine's."""
        return self.runtime.startswith("runsc")

    def runtime_with(self, gpus: Sequence[str]) -> str:
        """The runtime of a container with these GPUs; '' is the engine's own."""
        return gpu.RUNTIME if gpus and self.gpus_by == "nvidia" else self.runtime

    def host_tasks(self, pids: int) -> int:
        """The limit on processes and threads as the machine counts them. gVisor counts the job's own itself, by
        RLIMIT_NPROC; the machine sees its threads, some for each of the job's."""
        return GVISOR_TASKS + GVISOR_TASKS_EACH * pids if self.gvisor else pids

    def __post_init__(self) -> None:
        if self.uid <= 0 or self.gid <= 0:
            raise ValueError("a container's user and group are numbers above 0: root is never one of them")


def container_name(job: str, role: Role, site: str) -> str:
    """Unique per (site, job, role): several nodes may share one engine."""
    return f"cloister-{job}-{role}-{hashlib.sha256(site.encode()).hexdigest()[:8]}"


def labels(job: str, role: str, site: str) -> dict[str, str]:
    return {SITE_LABEL: site, JOB_LABEL: job, ROLE_LABEL: role}


def volume_arguments(spec: ContainerSpec, sandbox: SandboxPolicy, first: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """The body of the engine's create call for `/out`: a tmpfs whose bytes and file count the kernel bounds.

    `first` is the user and group outside that a container's 0 is: the engine mounts the volume outside.
    """
    limits = spec.resources
    # in pages: Podman takes a `size` for a disk quota of its own and refuses
    blocks = -(-limits.out_bytes // PAGE_BYTES)
    # two more inodes than files: the root and one task's folder
    owner = f"uid={first[0] + sandbox.uid},gid={first[1] + sandbox.gid}"
    options = f"nr_blocks={blocks},nr_inodes={limits.out_files + 2},mode=0700,{owner}"
    return {
        "Name": volume_name(spec.job, sandbox.site),
        "Driver": "local",
        "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": f"{options},nosuid,nodev,noexec"},
        "Labels": labels(spec.job, "out", sandbox.site),
    }


def volume_name(job: str, site: str) -> str:
    return f"cloister-{job}-out-{hashlib.sha256(site.encode()).hexdigest()[:8]}"


def create_arguments(spec: ContainerSpec, role: Role, sandbox: SandboxPolicy, image_id: str) -> dict[str, Any]:
    """The body of the engine's create call (Docker API 1.41): DESIGN section 3's restrictions, all of them constants
    but the limits, the mounts and the image."""
    limits = KEEPER if role == "keeper" else spec.resources
    program, gpus = _PROGRAMS[role], () if role == "keeper" else spec.gpu_devices
    return {
        "Image": image_id,
        **({} if program is None else {"Entrypoint": program, "Cmd": []}),
        "User": f"{sandbox.uid}:{sandbox.gid}",
        "Hostname": "job",
        "Env": _environment(limits, gpus if sandbox.gpus_by == "nvidia" else ()),
        "NetworkDisabled": True,
        "StopSignal": "SIGTERM",
        # an image's own health check would be one more program, started by the engine
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": labels(spec.job, role, sandbox.site),
        "HostConfig": {
            **_RIGHTS,
            **_limits(limits, sandbox),
            "Tmpfs": {"/tmp": f"{SCRATCH_FLAGS},size={limits.tmp_bytes},mode=1777"},  # noqa: S108  inside the container
            "Mounts": _mounts(spec, role, sandbox),
            "DeviceRequests": _devices(gpus, sandbox.gpus_by),
            "Runtime": sandbox.runtime_with(gpus),
        },
    }


_RIGHTS: Mapping[str, Any] = {
    "NetworkMode": "none",
    "IpcMode": "private",
    "CgroupnsMode": "private",
    "ReadonlyRootfs": True,
    "Privileged": False,
    "CapAdd": [],
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges", f"seccomp={SECCOMP}"],
    "Init": True,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "LogConfig": {"Type": "json-file", "Config": LOG_OPTIONS},
}


def _limits(limits: Resources, sandbox: SandboxPolicy) -> dict[str, Any]:
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # equal to memory: no swap
        "NanoCpus": round(limits.cpus * 1e9),
        "PidsLimit": sandbox.host_tasks(limits.pids),
        "ShmSize": limits.memory_bytes // 4,
        "Ulimits": [
            {"Name": "nofile", "Soft": OPEN_FILES, "Hard": OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},  # a core file is patients' data
            # on the machine's own kernel this would count the processes of all jobs together
            *([{"Name": "nproc", "Soft": limits.pids, "Hard": limits.pids}] if sandbox.gvisor else []),
        ],
    }


def _environment(limits: Resources, visible: Sequence[str]) -> list[str]:
    threads = max(1, int(limits.cpus))
    # an image that asks for `all` in its own environment would get them where the GPUs' runtime is the default one, and
    # what CDI gives would come from that runtime once more
    driver = [f"{_VISIBLE}={','.join(visible) or 'void'}", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    # whoever looks up the user's name (getpass, torch's caches) finds none by number in a small image, and dies of it
    return ["HOME=/tmp", "USER=job", f"OMP_NUM_THREADS={threads}", f"CLOISTER_CPUS={threads}", *driver]


def _mounts(spec: ContainerSpec, role: Role, sandbox: SandboxPolicy) -> list[dict[str, Any]]:
    out = {
        "Type": "volume",
        "Source": volume_name(spec.job, sandbox.site),
        "Target": "/out",
        "ReadOnly": False,
        "VolumeOptions": {"NoCopy": True},
    }
    return [out] if role == "keeper" else [_read_only(spec.data_dir, "/data"), _read_only(spec.in_dir, "/in"), out]


def _read_only(source: str, target: str) -> dict[str, Any]:
    # not recursive: read-only holds for one mount, and something mounted below it would stay writable
    options = {"Propagation": "rprivate", "NonRecursive": True}
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True, "BindOptions": options}


def _devices(gpus: Sequence[str], way: gpu.Way) -> list[dict[str, Any]]:
    # by id, never by count: the engine would give two containers the same first GPU
    if not gpus:
        return []
    if way == "nvidia":
        return [{"Driver": "", "Count": 0, "DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
    names = [f"{gpu.KIND}={each}" for each in gpus]
    return [{"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": [], "Options": {}}]


def fingerprint(arguments: Mapping[str, Any], engine: Mapping[str, Any]) -> str:
    """Hex SHA-256 over the engine's facts and the create arguments without image, program, mount sources, labels and
    which GPUs (how many stays).

    Two containers of one fingerprint differ in nothing that holds them.
    """
    kept = {key: value for key, value in arguments.items() if key not in ("Image", "Entrypoint", "Cmd", "Labels")}
    host = dict(kept["HostConfig"])
    host["Mounts"] = [{key: value for key, value in mount.items() if key != "Source"} for mount in host["Mounts"]]
    host["DeviceRequests"] = [{**one, "DeviceIDs": len(one["DeviceIDs"])} for one in host["DeviceRequests"]]
    kept["Env"] = [entry for entry in kept["Env"] if not entry.startswith(f"{_VISIBLE}=")]
    host["Binds"] = [text.split(":", 1)[1] for text in host.get("Binds", [])]
    kept["HostConfig"] = host
    seccomp = hashlib.sha256(SECCOMP.encode()).hexdigest()
    # counts of bytes may pass what canonical JSON holds exactly; as text they do not
    return hashlib.sha256(canonical.dumps([json.dumps(kept, sort_keys=True), seccomp, dict(engine)])).hexdigest()


def unsealed(
    inspect: Mapping[str, Any], spec: ContainerSpec, role: Role, sandbox: SandboxPolicy, image_id: str
) -> tuple[str, ...]:
    """The names of the restrictions that the container the engine really made does not have; empty if sealed."""
    limits = KEEPER if role == "keeper" else spec.resources
    found = (
        *_differences(inspect, _expected(limits, sandbox, image_id)),
        *_rights_missing(inspect["HostConfig"]),
        *_mounts_differ(inspect, spec, role, sandbox),
    )
    return tuple(dict.fromkeys(found))


def _expected(limits: Resources, sandbox: SandboxPolicy, image_id: str) -> dict[str, tuple[str, Any]]:
    """Path in the inspect → (name of the restriction, the one value it may have)."""
    return {
        "Image": ("image", image_id),
        "Config.User": ("user", f"{sandbox.uid}:{sandbox.gid}"),
        "Config.Healthcheck": ("health check", {"Test": ["NONE"]}),
        "HostConfig.NetworkMode": ("network", "none"),
        "HostConfig.ReadonlyRootfs": ("root", True),
        "HostConfig.Privileged": ("privileged", False),
        "HostConfig.CapDrop": ("capabilities", ["ALL"]),
        "HostConfig.IpcMode": ("ipc", "private"),
        "HostConfig.Init": ("init", True),
        "HostConfig.AutoRemove": ("removal", False),
        "HostConfig.PidsLimit": ("pids", 256 + 8 * limits.pids if sandbox.gvisor else limits.pids),
        "HostConfig.Memory": ("memory", limits.memory_bytes),
        "HostConfig.MemorySwap": ("swap", limits.memory_bytes),
        "HostConfig.NanoCpus": ("cpus", round(limits.cpus * 1_000_000_000)),
        "HostConfig.ShmSize": ("shared memory", limits.memory_bytes // 4),
        "HostConfig.Tmpfs": ("tmp", {"/tmp": f"rw,noexec,nosuid,nodev,size={limits.tmp_bytes},mode=1777"}),  # noqa: S108
        "HostConfig.LogConfig": ("log", {"Type": "json-file", "Config": {"max-size": "2m", "max-file": "2"}}),
        "HostConfig.RestartPolicy.Name": ("restart", "no"),
    }


def _differences(inspect: Mapping[str, Any], expected: Mapping[str, tuple[str, Any]]) -> Iterator[str]:
    for path, (name, wanted) in expected.items():
        value: Any = inspect
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value != wanted:
            yield name


# whatever of these the engine reports must be empty, absent, or its private default
_EMPTY = {
    "CapAdd": "capabilities", "Binds": "mounts", "VolumesFrom": "mounts", "Devices": "devices",
    "DeviceCgroupRules": "devices", "GroupAdd": "groups", "Links": "network", "PortBindings": "network",
    "PublishAllPorts": "network", "ExtraHosts": "network", "Dns": "network", "Sysctls": "sysctls",
    "PidMode": "pid namespace", "UTSMode": "uts namespace", "UsernsMode": "user namespace", "Cgroup": "cgroup",
    "CgroupParent": "cgroup", "OomKillDisable": "memory", "ContainerIDFile": "id file",
}  # fmt: skip


def _rights_missing(host: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for key, name in _EMPTY.items() if host.get(key))
    if sorted(host.get("SecurityOpt") or []) != ["no-new-privileges", f"seccomp={SECCOMP}"]:
        yield "seccomp and no-new-privileges"
    limits = {entry["Name"]: (entry["Soft"], entry["Hard"]) for entry in host.get("Ulimits") or []}
    if limits.get("nofile") != (OPEN_FILES, OPEN_FILES) or limits.get("core") != (0, 0):
        yield "ulimits"
    if not {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(host.get("MaskedPaths") or []):
        yield "masked paths"
    if not {"/proc/sys", "/proc/sysrq-trigger"} <= set(host.get("ReadonlyPaths") or []):
        yield "read-only paths"


def _mounts_differ(
    inspect: Mapping[str, Any], spec: ContainerSpec, role: Role, sandbox: SandboxPolicy
) -> Iterator[str]:
    out = ("volume", "/out", volume_name(spec.job, sandbox.site), True)
    wanted = {out}
    if role != "keeper":
        wanted |= {("bind", "/data", spec.data_dir, False), ("bind", "/in", spec.in_dir, False)}
    found = {
        (mount["Type"], mount["Destination"], mount["Name" if mount["Type"] == "volume" else "Source"], mount["RW"])
        for mount in inspect["Mounts"]
        if mount["Type"] != "tmpfs"
    }
    if found != wanted or len([mount for mount in inspect["Mounts"] if mount["Type"] != "tmpfs"]) != len(wanted):
        yield "mounts"
    gpus = () if role == "keeper" else spec.gpu_devices
    yield from _gpus_differ(inspect, gpus, sandbox.gpus_by)
    runtime = "nvidia" if gpus and sandbox.gpus_by == "nvidia" else sandbox.runtime
    if runtime and inspect["HostConfig"].get("Runtime") != runtime:
        yield "runtime"


def _gpus_differ(inspect: Mapping[str, Any], gpus: Sequence[str], way: gpu.Way) -> Iterator[str]:
    """Exactly these GPUs by request, and the same (or none) in the environment that the GPUs' runtime reads."""
    requests = inspect["HostConfig"].get("DeviceRequests") or []
    keys = ("Driver", "Count", "DeviceIDs", "Capabilities", "Options")
    found = [tuple(entry.get(key) or None for key in keys) for entry in requests]
    seen = [
        entry for entry in inspect.get("Config", {}).get("Env") or () if entry.startswith("NVIDIA_VISIBLE_DEVICES=")
    ]
    # whatever is empty the engine may leave out
    wanted: tuple[Any, ...] = ("cdi", None, [f"nvidia.com/gpu={each}" for each in gpus], None, None)
    visible = "void"
    if gpus and way == "nvidia":
        wanted, visible = (None, None, list(gpus), [["gpu"]], None), ",".join(gpus)
    if found != ([wanted] if gpus else []) or seen != [f"NVIDIA_VISIBLE_DEVICES={visible}"]:
        yield "gpus"

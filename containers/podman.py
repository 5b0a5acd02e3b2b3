"""Podman's dialect of the engine's API: the same sealed container, asked for and read back in Podman's words.

Podman answers Docker's API, but takes the seccomp profile as a file, adds writable scratch folders of its own to a
read-only root, drops a mount option, and leaves out of Docker's inspect what its own inspect tells; GPUs it gives from
5.4 on, by CDI alone. `spoken` translates what `sandbox.create_arguments` asks for; `unsealed` reads the answer against
expectations of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from containers import gpu
from containers.sandbox import KEEPER, OPEN_FILES, SECCOMP, Role, SandboxPolicy, volume_name
from durable.files import replace_file
from mediator.types import ContainerSpec, Resources

# Podman would ask for 1,048,576, which a service without CAP_SYS_RESOURCE may not give. It counts all processes of
# the job's user on this machine; one job's own are counted by its control group (`pids`).
PROCESSES_OF_THE_USER = 32_768
# Podman's own scratch folders beside /tmp: kept, for it insists, but a page each and not the job's to write
_SHUT = "rw,noexec,nosuid,nodev,size=4096,mode=0555"


def seccomp_file(folder: Path) -> Path:
    """Our profile as a file in `folder` (the broker's own), written anew unless it is there to the byte.

    Its name holds its hash, so that another profile is another file and another fingerprint.
    """
    path = folder / f".seccomp-{hashlib.sha256(SECCOMP.encode()).hexdigest()[:32]}.json"
    try:
        if not path.is_symlink() and path.read_text(encoding="ascii") == SECCOMP:
            return path
    except (OSError, ValueError):
        pass
    replace_file(path, SECCOMP.encode("ascii"), 0o644)  # the engine is another user where it is rootless
    return path


def spoken(arguments: Mapping[str, Any], profile: Path) -> dict[str, Any]:
    """The body of Docker's create call as Podman must be told it, with `profile` as its seccomp file."""
    host = dict(arguments["HostConfig"])
    options = [f"seccomp={profile}" if text.startswith("seccomp={") else text for text in host["SecurityOpt"]]
    volumes = [mount for mount in host["Mounts"] if mount["Type"] == "volume"]
    return {
        **arguments,
        "HostConfig": {
            **host,
            "SecurityOpt": options,
            "Tmpfs": {**host["Tmpfs"], "/run": _SHUT, "/var/tmp": _SHUT},  # noqa: S108  inside the container
            # as a mount it would lose `noexec`
            "Mounts": [mount for mount in host["Mounts"] if mount["Type"] != "volume"],
            "Binds": [
                *host.get("Binds", []),
                *(f"{mount['Source']}:{mount['Target']}:rw,noexec,nosuid,nodev" for mount in volumes),
            ],
            "Ulimits": [
                *host["Ulimits"],
                {"Name": "nproc", "Soft": PROCESSES_OF_THE_USER, "Hard": PROCESSES_OF_THE_USER},
            ],
        },
    }


def unsealed(
    inspect: Mapping[str, Any], spec: ContainerSpec, role: Role, sandbox: SandboxPolicy, image_id: str, profile: Path
) -> tuple[str, ...]:
    """The names of the restrictions that the container Podman really made does not have; empty if sealed.

    `inspect` is Docker's, with Podman's own inspect under the key `Podman`.
    """
    limits = KEEPER if role == "keeper" else spec.resources
    expected = _expected(limits, sandbox, image_id, profile)
    found = [name for path, (name, wanted) in expected.items() if _at(inspect, path) not in wanted]
    found += [name for key, name in _EMPTY.items() if inspect["HostConfig"].get(key)]
    found += [*_tmpfs_differ(inspect, limits), *_mounts_differ(inspect, spec, role, sandbox)]
    found += _gpus_differ(inspect, () if role == "keeper" else spec.gpu_devices)
    if sandbox.runtime:
        found.append("runtime")  # gVisor's own limits are asked for, and proved, on Docker alone
    return tuple(dict.fromkeys(found))


def _expected(
    limits: Resources, sandbox: SandboxPolicy, image_id: str, profile: Path
) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Path in the inspect → (name of the restriction, the values it may have)."""
    ulimits = [
        {"Name": "RLIMIT_NOFILE", "Soft": OPEN_FILES, "Hard": OPEN_FILES},
        {"Name": "RLIMIT_CORE", "Soft": 0, "Hard": 0},
        {"Name": "RLIMIT_NPROC", "Soft": 32_768, "Hard": 32_768},
    ]
    return {
        "Image": ("image", (image_id,)),
        "Podman.Image": ("image", (image_id.removeprefix("sha256:"),)),
        "Podman.Rootfs": ("image", ("",)),
        "Config.User": ("user", (f"{sandbox.uid}:{sandbox.gid}",)),
        "Config.Healthcheck.Test": ("health check", (["NONE"],)),
        "HostConfig.NetworkMode": ("network", ("none",)),
        "HostConfig.ReadonlyRootfs": ("root", (True,)),
        "HostConfig.Privileged": ("privileged", (False,)),
        "HostConfig.CapAdd": ("capabilities", ([], None)),
        # Docker's form lists what was dropped of a default set; these two are what is left
        "Podman.EffectiveCaps": ("capabilities", (None, [])),
        "Podman.BoundingCaps": ("capabilities", (None, [])),
        # `shareable`: its own, but open to another container that asks for it; only the broker makes containers
        "HostConfig.IpcMode": ("ipc", ("private", "shareable")),
        "HostConfig.PidMode": ("pid namespace", ("private",)),
        "HostConfig.UTSMode": ("uts namespace", ("private",)),
        "HostConfig.Init": ("init", (True,)),
        "HostConfig.AutoRemove": ("removal", (False,)),
        "HostConfig.RestartPolicy.Name": ("restart", ("no",)),
        "HostConfig.PidsLimit": ("pids", (limits.pids,)),
        "HostConfig.Memory": ("memory", (limits.memory_bytes,)),
        "HostConfig.MemorySwap": ("swap", (limits.memory_bytes,)),
        "HostConfig.NanoCpus": ("cpus", (round(limits.cpus * 1_000_000_000),)),
        "HostConfig.ShmSize": ("shared memory", (limits.memory_bytes // 4,)),
        "HostConfig.Ulimits": ("ulimits", (ulimits,)),
        "HostConfig.SecurityOpt": ("seccomp and no-new-privileges", (["no-new-privileges", f"seccomp={profile}"],)),
        "HostConfig.LogConfig.Type": ("log", ("json-file", "k8s-file")),
        "Podman.HostConfig.LogConfig.Size": ("log", ("2MB",)),
        "Podman.Pod": ("pod", ("",)),
        "Podman.HostConfig.Cgroups": ("cgroup", ("default",)),
    }


# whatever of these Podman reports must be empty or absent
_EMPTY = {
    "VolumesFrom": "mounts", "DeviceCgroupRules": "devices", "DeviceRequests": "gpus",
    "GroupAdd": "groups", "Links": "network", "PortBindings": "network", "PublishAllPorts": "network",
    "ExtraHosts": "network", "Dns": "network", "Sysctls": "sysctls", "Cgroup": "cgroup", "CgroupParent": "cgroup",
    "OomKillDisable": "memory", "ContainerIDFile": "id file", "UsernsMode": "user namespace",
}  # fmt: skip


def _at(inspect: Mapping[str, Any], path: str) -> Any:
    value: Any = inspect
    for key in path.split("."):
        # a key that is missing is no value at all, and not the `None` that some restrictions may have
        value = value.get(key, ...) if isinstance(value, Mapping) else ...
    return value


def _tmpfs_differ(inspect: Mapping[str, Any], limits: Resources) -> Iterator[str]:
    shut = {"rw", "noexec", "nosuid", "nodev", "size=4096", "mode=0555"}
    wanted = {
        "/tmp": {"rw", "noexec", "nosuid", "nodev", f"size={limits.tmp_bytes}", "mode=1777"},  # noqa: S108
        "/run": shut,
        "/var/tmp": shut,  # noqa: S108
    }
    # how a mount propagates (not at all), and that the image's own files are copied in, Podman adds by itself
    found = {
        place: set(str(text).split(",")) - {"rprivate", "tmpcopyup"}
        for place, text in (inspect["HostConfig"].get("Tmpfs") or {}).items()
    }
    if found != wanted:
        yield "tmp"


def _mounts_differ(
    inspect: Mapping[str, Any], spec: ContainerSpec, role: Role, sandbox: SandboxPolicy
) -> Iterator[str]:
    wanted = {("volume", "/out", volume_name(spec.job, sandbox.site), True)}
    if role != "keeper":
        wanted |= {("bind", "/data", spec.data_dir, False), ("bind", "/in", spec.in_dir, False)}
    mounts = (inspect.get("Podman") or {}).get("Mounts") or []
    found = {
        (mount["Type"], mount["Destination"], mount["Name" if mount["Type"] == "volume" else "Source"], mount["RW"])
        for mount in mounts
    }
    shared = [mount["Destination"] for mount in mounts if mount["Propagation"] != "rprivate"]
    options = {mount["Destination"]: set(mount["Options"]) for mount in mounts}
    shut = {"noexec", "nosuid", "nodev"} <= options.get("/out", set())
    if found != wanted or len(mounts) != len(wanted) or shared or not shut:
        yield "mounts"


# what the driver's CDI spec brings: a GPU, what is asked of all of them, the files that stand for MIG slices
_NODE = re.compile(r"/dev/nvidia(?:ctl|-uvm|-uvm-tools|-modeset|-caps/nvidia-cap\d+|(?P<number>\d+))")


def nodes_differ(inspect: Mapping[str, Any], gpus: Sequence[str]) -> bool:
    """Whether a running container has other device nodes than those of as many GPUs. Podman tells of a CDI request
    nowhere, and of the nodes it brought once the container runs."""
    devices = _at(inspect, "HostConfig.Devices")
    names = [str(node.get("PathInContainer")) for node in devices] if isinstance(devices, list) else []
    known = [found for name in names if (found := _NODE.fullmatch(name))]
    least, most = gpu.nodes(gpus)
    return len(known) < len(names) or not least <= sum(bool(found["number"]) for found in known) <= most


def _gpus_differ(inspect: Mapping[str, Any], gpus: Sequence[str]) -> Iterator[str]:
    visible = [text for text in (_at(inspect, "Config.Env") or []) if text.startswith("NVIDIA_VISIBLE_DEVICES=")]
    started = _at(inspect, "State.Status") != "created"
    # a CDI spec says once more what we said
    most = 2 if gpus and started else 1
    if set(visible) != {"NVIDIA_VISIBLE_DEVICES=void"} or len(visible) > most:
        yield "gpus"
    elif gpus and started:
        if nodes_differ(inspect, gpus):
            yield "gpus"
    elif inspect["HostConfig"].get("Devices"):
        yield "devices"

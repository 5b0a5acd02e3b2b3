"""What we ask the engine for, and that our own reading of its answer misses nothing. No engine needed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from containers import sandbox, seccomp
from containers.sandbox import SandboxPolicy
from mediator.types import ContainerSpec
from tests.containers.bench import CEILING, LIMITS, utc_now

DIGEST = "sha256:" + "a" * 64
SITE = SandboxPolicy("north", DIGEST, CEILING, Path("/srv/work"), Path("/srv/probe"))
NOW = utc_now()
SPEC = ContainerSpec("job", "job", DIGEST, "/srv/work/job/data", "/srv/work/job/in", LIMITS, NOW, NOW)


def inspected(role: sandbox.Role = "job", spec: ContainerSpec = SPEC, site: SandboxPolicy = SITE) -> dict[str, Any]:
    """What an engine that does as told would answer."""
    asked = copy.deepcopy(sandbox.create_arguments(spec, role, site, DIGEST))
    host = asked.pop("HostConfig")
    mounts = [
        {
            "Type": mount["Type"],
            "Destination": mount["Target"],
            "Source": mount["Source"],
            "Name": mount["Source"],
            "RW": not mount["ReadOnly"],
        }
        for mount in host["Mounts"]
    ]
    host["MaskedPaths"] = ["/proc/kcore", "/proc/keys", "/sys/firmware"]
    host["ReadonlyPaths"] = ["/proc/sys", "/proc/sysrq-trigger"]
    return {"Image": DIGEST, "Config": asked, "HostConfig": host, "Mounts": mounts}


@pytest.mark.parametrize("role", ["job", "canary", "keeper"])
def test_what_we_ask_for_is_sealed(role: sandbox.Role) -> None:
    assert sandbox.unsealed(inspected(role), SPEC, role, SITE, DIGEST) == ()


def test_an_empty_answer_is_not_sealed() -> None:
    assert len(sandbox.unsealed({"HostConfig": {}, "Mounts": []}, SPEC, "job", SITE, DIGEST)) > 15


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NetworkMode", "host"), ("NetworkMode", "bridge"), ("ReadonlyRootfs", False), ("Privileged", True),
        ("CapAdd", ["SYS_ADMIN"]), ("CapDrop", []), ("CapDrop", ["NET_RAW"]), ("SecurityOpt", []),
        ("SecurityOpt", ["no-new-privileges"]), ("SecurityOpt", ["no-new-privileges", "seccomp=unconfined"]),
        ("SecurityOpt", ["no-new-privileges", f"seccomp={sandbox.SECCOMP}", "apparmor=unconfined"]),
        ("IpcMode", "host"), ("PidMode", "host"), ("UTSMode", "host"), ("UsernsMode", "host"), ("PidsLimit", 0),
        ("PidsLimit", None), ("Memory", 0), ("MemorySwap", -1), ("MemorySwap", 2 * LIMITS.memory_bytes),
        ("NanoCpus", 0),
        ("OomKillDisable", True), ("ShmSize", 1 << 40), ("Tmpfs", {}), ("Tmpfs", {"/tmp": "rw"}),
        ("Tmpfs", {"/tmp": f"rw,noexec,nosuid,nodev,size={LIMITS.tmp_bytes},mode=1777", "/etc": "rw"}),
        ("Binds", ["/:/host"]), ("VolumesFrom", ["other"]), ("Devices", [{"PathOnHost": "/dev/sda"}]),
        ("DeviceRequests", [{"Count": -1, "Capabilities": [["gpu"]]}]), ("DeviceCgroupRules", ["c 1:3 r"]),
        ("GroupAdd", ["docker"]), ("Sysctls", {"net.ipv4.ip_forward": "1"}), ("PortBindings", {"80/tcp": []}),
        ("PublishAllPorts", True), ("ExtraHosts", ["hub:10.0.0.1"]), ("Links", ["db"]), ("Dns", ["10.0.0.1"]),
        ("CgroupParent", "/"), ("Init", False), ("AutoRemove", True), ("RestartPolicy", {"Name": "always"}),
        ("LogConfig", {"Type": "json-file", "Config": {}}), ("LogConfig", {"Type": "syslog", "Config": {}}),
        ("Ulimits", []), ("MaskedPaths", []), ("ReadonlyPaths", None),
    ],
)  # fmt: skip
def test_each_restriction_that_is_missing_is_named(key: str, value: Any) -> None:
    inspect = inspected()
    inspect["HostConfig"][key] = value
    assert sandbox.unsealed(inspect, SPEC, "job", SITE, DIGEST)


@pytest.mark.parametrize(
    "change",
    [
        lambda inspect: inspect["Config"].update(User=""),
        lambda inspect: inspect["Config"].update(User="0"),
        lambda inspect: inspect["Config"].update(Healthcheck={"Test": ["CMD", "/bin/x"]}),
        lambda inspect: inspect.update(Image="sha256:" + "b" * 64),
        lambda inspect: inspect["Mounts"][0].update(RW=True),
        lambda inspect: inspect["Mounts"][0].update(Source="/etc"),
        lambda inspect: inspect["Mounts"][2].update(Name="somebody-elses"),
        lambda inspect: inspect["Mounts"].append({**inspect["Mounts"][0], "Destination": "/more"}),
        lambda inspect: inspect["Mounts"].append(inspect["Mounts"][0]),
        lambda inspect: inspect["Mounts"].pop(),
    ],
)
def test_another_user_image_or_mount_is_named(change: Any) -> None:
    inspect = inspected()
    change(inspect)
    assert sandbox.unsealed(inspect, SPEC, "job", SITE, DIGEST)


def test_a_keeper_sees_nothing_but_out() -> None:
    mounts = sandbox.create_arguments(SPEC, "keeper", SITE, DIGEST)["HostConfig"]["Mounts"]
    assert [mount["Target"] for mount in mounts] == ["/out"]


TWO = replace(SPEC, resources=replace(LIMITS, gpus=2), gpu_devices=("GPU-a", "GPU-b"))


# way → site, the request that a real card was given for, what stands in the environment, the runtime
NVIDIAS = replace(SITE, gpus_by="nvidia")
WAYS = {
    "cdi": (
        SITE,
        {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"],
         "Capabilities": [], "Options": {}},
        "void", "",
    ),
    "nvidia": (
        NVIDIAS, {"Driver": "", "Count": 0, "DeviceIDs": ["GPU-a", "GPU-b"], "Capabilities": [["gpu"]]},
        "GPU-a,GPU-b", "nvidia",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_gpus_come_by_request_and_by_name(way: str) -> None:
    site, request, visible, runtime = WAYS[way]
    asked = sandbox.create_arguments(TWO, "job", site, DIGEST)
    assert asked["HostConfig"]["DeviceRequests"] == [request]
    assert f"NVIDIA_VISIBLE_DEVICES={visible}" in asked["Env"]
    assert asked["HostConfig"]["Runtime"] == runtime
    assert sandbox.unsealed(inspected(spec=TWO, site=site), TWO, "job", site, DIGEST) == ()
    assert "gpus" in sandbox.unsealed(inspected(spec=TWO, site=site), SPEC, "job", site, DIGEST)
    assert "gpus" in sandbox.unsealed(inspected(site=site), TWO, "job", site, DIGEST)
    for role, spec in (("keeper", TWO), ("job", SPEC)):
        host = sandbox.create_arguments(spec, role, site, DIGEST)["HostConfig"]  # type: ignore[arg-type]
        assert (host["DeviceRequests"], host["Runtime"]) == ([], "")


def test_gpus_that_were_asked_for_in_the_other_way_are_named() -> None:
    for asked, expected in ((SITE, NVIDIAS), (NVIDIAS, SITE)):
        assert "gpus" in sandbox.unsealed(inspected(spec=TWO, site=asked), TWO, "job", expected, DIGEST)


def test_a_container_with_gpus_on_another_runtime_than_nvidias_is_named() -> None:
    inspect = inspected(spec=TWO, site=NVIDIAS)
    inspect["HostConfig"]["Runtime"] = "runc"
    assert sandbox.unsealed(inspect, TWO, "job", NVIDIAS, DIGEST) == ("runtime",)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("count", "ids"), [(-1, None), (2, None), (0, ["a"]), (0, ["a", "c"]), (0, ["a", "b", "c"]), (0, ["b", "a", "all"])]
)
def test_other_gpus_than_those_granted_are_named(way: str, count: int, ids: list[str] | None) -> None:
    site, request, _, _ = WAYS[way]
    prefix = "nvidia.com/gpu=GPU-" if way == "cdi" else "GPU-"
    inspect = inspected(spec=TWO, site=site)
    given = {"Count": count, "DeviceIDs": ids and [prefix + each for each in ids]}
    inspect["HostConfig"]["DeviceRequests"] = [{**request, **given}]
    assert sandbox.unsealed(inspect, TWO, "job", site, DIGEST) == ("gpus",)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "change",
    [{"Driver": "nvidia"}, {"Driver": "other.com/device"}, {"Capabilities": [["all"]]}, {"Options": {"all": "yes"}}],
)
def test_another_driver_or_capability_than_asked_for_is_named(way: str, change: dict[str, Any]) -> None:
    site, request, _, _ = WAYS[way]
    inspect = inspected(spec=TWO, site=site)
    inspect["HostConfig"]["DeviceRequests"] = [{**request, **change}]
    assert sandbox.unsealed(inspect, TWO, "job", site, DIGEST) == ("gpus",)
    inspect["HostConfig"]["DeviceRequests"] = [request, request]
    assert sandbox.unsealed(inspect, TWO, "job", site, DIGEST) == ("gpus",)


@pytest.mark.parametrize("env", [[], ["NVIDIA_VISIBLE_DEVICES=all"], ["NVIDIA_VISIBLE_DEVICES=void"] * 2])
def test_an_image_that_asks_for_every_gpu_in_its_environment_is_named(env: list[str]) -> None:
    inspect = inspected()
    assert "NVIDIA_VISIBLE_DEVICES=void" in inspect["Config"]["Env"]
    inspect["Config"]["Env"] = env
    assert sandbox.unsealed(inspect, SPEC, "job", SITE, DIGEST) == ("gpus",)


def test_a_fingerprint_depends_on_how_many_gpus_and_not_on_which() -> None:
    def of(spec: ContainerSpec) -> str:
        return sandbox.fingerprint(sandbox.create_arguments(spec, "job", SITE, DIGEST), {})

    assert of(TWO) == of(replace(TWO, gpu_devices=("GPU-c", "GPU-a")))
    assert of(TWO) != of(replace(TWO, resources=replace(LIMITS, gpus=1), gpu_devices=("GPU-a",))) != of(SPEC)


def test_a_container_is_never_roots() -> None:
    for uid, gid in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ValueError, match="root"):
            replace(SITE, uid=uid, gid=gid)


def test_six_variables_of_ours_reach_a_job() -> None:
    names = [entry.split("=")[0] for entry in sandbox.create_arguments(SPEC, "job", SITE, DIGEST)["Env"]]
    ours = ["HOME", "USER", "OMP_NUM_THREADS", "CLOISTER_CPUS", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"]
    assert names == ours


def test_the_filter_in_the_repository_is_the_one_described() -> None:
    made = subprocess.run([sys.executable, "-m", "containers.seccomp"], capture_output=True, text=True, check=True)
    assert made.stdout == (Path(seccomp.__file__).parent / "seccomp.json").read_text()


DANGEROUS = """
    add_key keyctl request_key ptrace process_vm_readv process_vm_writev mount umount umount2 pivot_root chroot unshare
    setns clone clone3 bpf userfaultfd io_uring_setup io_uring_enter io_uring_register perf_event_open kexec_load
    kexec_file_load init_module finit_module delete_module open_by_handle_at name_to_handle_at personality socket setuid
    setgid setgroups setresuid quotactl swapon reboot syslog acct settimeofday clock_settime iopl ioperm fanotify_init
    move_mount open_tree fsopen fsmount mount_setattr pidfd_getfd kcmp
"""


def test_the_filter_allows_by_name_and_nothing_dangerous() -> None:
    profile = json.loads(sandbox.SECCOMP)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    unconditional = {name for rule in profile["syscalls"] if not rule.get("args") for name in rule["names"]}
    dangerous = set(DANGEROUS.split())
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert not unconditional & dangerous - {"clone3"}
    assert allowed & dangerous == {"clone", "personality", "socket"}


# what Podman uses where nobody says otherwise (Debian's golang-github-containers-common): moby's list, kept up to date
DEFAULT_FILTER = Path("/usr/share/containers/seccomp.json")
# calls younger than that list, of a kind that it allows
YOUNGER = {"fchmodat2", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "map_shadow_stack"}


@pytest.mark.engine
def test_the_filter_is_a_strict_part_of_the_engines_default() -> None:
    default, ours = json.loads(DEFAULT_FILTER.read_text()), json.loads(sandbox.SECCOMP)
    known = {name for rule in default["syscalls"] for name in rule["names"]}
    # what the default gives to a container without capabilities, with whatever arguments
    given = {name for rule in default["syscalls"] if allows(rule) and not needs(rule) for name in rule["names"]}
    allowed = {name for rule in ours["syscalls"] if allows(rule) for name in rule["names"]}
    assert allowed - known <= YOUNGER
    assert allowed & known < given
    assert len(given - allowed) > 100


def allows(rule: dict[str, Any]) -> bool:
    return rule["action"] == "SCMP_ACT_ALLOW"


def needs(rule: dict[str, Any]) -> bool:
    return bool((rule.get("includes") or {}).get("caps"))


def test_shared_memory_is_sized_for_data_loaders_and_open_files_for_torch() -> None:
    """A quarter of the job's memory; the engine's own 64 MB would end a loader of two workers with a bus error."""
    host = sandbox.create_arguments(SPEC, "job", SITE, DIGEST)["HostConfig"]
    assert host["ShmSize"] == LIMITS.memory_bytes // 4
    assert {"Name": "nofile", "Soft": 16_384, "Hard": 16_384} in host["Ulimits"]

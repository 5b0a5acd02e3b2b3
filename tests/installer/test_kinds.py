"""Kinds of machines: GPUs by each way that an engine has, engines that are no root, and the configuration that fits."""

from __future__ import annotations

import itertools
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from containers import gpu
from containers.engine import ContainerEngine
from deploy.install.checks import Finding, Wanted, check
from deploy.install.config_text import facts, node_toml
from deploy.install.engine_kinds import JOB_GROUP, kind_of
from deploy.install.gpus import ASKED, Gpu, listed, ways
from deploy.install.machine import Machine
from deploy.install.questions import Answers
from deploy.release import debs
from mediator.errors import Denied
from node.host.config import UsersConfig
from tests.containers.bench import ENGINE_URL
from tests.installer.ground import KEY, SENTINEL_ID, engine, program, write_script
from tests.sim import nvidia
from tests.sim.nvidia import CARDS

OTHER = "GPU-ffffffff-0000-4000-8000-00000000cafe"
ANSWERS: Answers = {
    "site": ("st-anna",), "hub": ("127.0.0.1:8443",), "committee_key": (KEY,), "steward_key": (KEY,),
    "source_root": ("/srv",),
}  # fmt: skip


def found(machine: Machine, what: str, wanted: Wanted | None = None) -> Finding:
    return next(each for each in check(machine, wanted or Wanted("node")) if each.what == what)


def write(machine: Machine, path: str, text: str) -> None:
    machine.at(path).parent.mkdir(parents=True, exist_ok=True)
    machine.at(path).write_text(text)


def cards(machine: Machine, *lines: str) -> None:
    """A driver whose `nvidia-smi` says this."""
    program(machine.root, "nvidia-smi")
    write(machine, f"/fake/nvidia-smi/--query-gpu={ASKED}", "".join(f"{line}\n" for line in lines))


def config(machine: Machine, url: str = "unix:///run/docker.sock") -> dict[str, Any]:
    return tomllib.loads(node_toml(ANSWERS, facts(machine, url), url, SENTINEL_ID, "/var/lib/cloister/node"))


@contextmanager
def docker(machine: Machine, **info: object) -> Iterator[None]:
    more = {"/info": {"ServerVersion": "26.1.5", "Runtimes": {"runc": {}}, "SecurityOptions": [], **info}}
    with engine(machine.root, "26.1.5", more=more):
        yield


@contextmanager
def podman(machine: Machine, at: str, libpod: Mapping[str, object] | None = None) -> Iterator[str]:
    version = "4.3.1"
    info = {"ServerVersion": version, "Rootless": True, "CgroupVersion": "2", "Runtimes": {"nvidia": {}}}
    more = {
        "/version": {"Version": version, "Components": [{"Name": "Podman Engine"}]},
        "/info": {**info, "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]},
        "/v4.0.0/libpod/info": {"host": libpod or {}},
    }
    with engine(machine.root, version, at, more):
        yield f"unix:///{at}"


def test_a_machine_without_gpus_needs_none(machine: Machine) -> None:
    assert found(machine, "gpus") == Finding("gpus", "ok", "none here; jobs compute on processors")
    plain = config(machine)
    assert plain["limits"]["gpus"] == 0 and "gpus" not in plain["schedule"]


def test_several_gpus_by_cdi_go_into_the_configuration_with_their_memory(bare: Machine) -> None:
    cards(bare, *(f"{card}, 81559, [N/A]" for card in CARDS))
    nvidia.write_spec(bare.at("/etc/cdi"), nvidia.cdi_spec())
    with docker(bare, CDISpecDirs=["/etc/cdi", "/var/run/cdi"]):
        assert found(bare, "gpus") == Finding("gpus", "ok", "3, by CDI (78 GiB, 78 GiB, 78 GiB)")
        plain = config(bare)
    assert plain["limits"]["gpus"] == 3
    assert plain["schedule"]["gpus"] == [{"id": card, "memory_bytes": 78 << 30} for card in CARDS]


def test_several_gpus_by_the_classic_runtime(bare: Machine) -> None:
    cards(bare, *(f"{card}, 24576, Disabled" for card in CARDS[:2]))
    with docker(bare, Runtimes={"runc": {}, "nvidia": {}}):
        assert found(bare, "gpus") == Finding("gpus", "ok", "2, by the runtime nvidia (23 GiB, 23 GiB)")
        assert [each["id"] for each in config(bare)["schedule"]["gpus"]] == list(CARDS[:2])


def test_gpus_that_the_engine_cannot_give_are_told_and_not_promised(bare: Machine) -> None:
    """A node that names a GPU which its engine cannot give has no canary that passes, and so no job at all."""
    cards(bare, *(f"{card}, 24576, [N/A]" for card in CARDS))
    nvidia.write_spec(bare.at("/etc/cdi"), nvidia.cdi_spec(CARDS[:1]))
    with docker(bare):  # specs that lie there are nothing to an engine without CDI, which is Debian 12's
        seen = found(bare, "gpus")
        assert seen.state == "warning" and "0 of 3 for jobs: docker 26.1.5 has neither" in seen.detail and seen.cure
        assert config(bare)["limits"]["gpus"] == 0
    with docker(bare, CDISpecDirs=["/etc/cdi"]):
        seen = found(bare, "gpus")
        assert "1 of 3 for jobs: no CDI spec in /etc/cdi names" in seen.detail and "nvidia-ctk" in seen.cure
        assert [each["id"] for each in config(bare)["schedule"]["gpus"]] == [CARDS[0]]
        write(bare, "/etc/cloister/node.toml", '[engine]\nruntime = "runsc"\nsocket = "unix:///run/docker.sock"\n')
        assert "gVisor" in found(bare, "gpus").detail


def test_a_driver_that_names_no_gpu_and_one_whose_gpus_are_sliced(machine: Machine) -> None:
    write(machine, "/proc/driver/nvidia/version", "NVRM version: 580\n")
    assert "nvidia-smi is not installed" in found(machine, "gpus").detail
    cards(machine, "[N/A], [N/A], [N/A]", "MIG-1, 9, [N/A]")
    assert listed(machine) == ((), "it names none with its memory")
    cards(machine, f"{CARDS[0]}, 81559, Enabled")
    assert "slices (MIG): name them in [[schedule.gpus]]" in found(machine, "gpus").detail
    assert config(machine)["limits"]["gpus"] == 0


def decided(info: Mapping[str, Any], kind: Any, cards: tuple[str, ...], runtime: str) -> str:
    try:
        return {"cdi": "by CDI", "nvidia": "by the runtime nvidia"}[
            gpu.decide(gpu.GpuOffer.of(info, kind), cards, runtime)
        ]
    except Denied:
        return ""


def test_the_installer_finds_what_the_node_will_decide(bare: Machine) -> None:
    """The whole table: kind and version of the engine, its CDI, what that knows, its runtimes, what the node names."""
    folder = bare.at("/etc/cdi")
    nvidia.write_spec(folder, nvidia.cdi_spec())
    here = Machine()  # paths of an engine are the real machine's, for the node looks there
    rows = 0
    for kind, version in (("docker", "20.10.24"), ("docker", "28.3.0"), ("podman", "4.3.1"), ("podman", "5.4.2")):
        for cdi, classic, asked, runtime, discovered in itertools.product(
            (False, True), (False, True), (CARDS, (CARDS[0],), (*CARDS, OTHER)), ("", "nvidia", "crun", "runsc"),
            (None, [], [{"ID": f"nvidia.com/gpu={card}"} for card in CARDS]),
        ):  # fmt: skip
            info: dict[str, Any] = {"ServerVersion": version, "Runtimes": {"runc": {}, "crun": {}}}
            info |= {"CDISpecDirs": [str(folder), "/nonexistent"]} if cdi else {}
            info["Runtimes"] |= {"nvidia": {}} if classic else {}
            info |= {} if discovered is None else {"DiscoveredDevices": discovered}
            given = ways(here, tuple(Gpu(card, 1 << 30) for card in asked), info, kind, runtime)
            whole = given.how if len(given.gpus) == len(asked) and not given.lacks else ""
            assert whole == decided(info, kind, asked, runtime), (info, kind, asked, runtime)
            assert bool(given.lacks) == bool(given.cure) == (whole == "")
            rows += 1
    assert rows == 576


@pytest.fixture
def own(bare: Machine) -> Machine:
    """A machine whose user `engine` (this test's own) has an engine, and groups of its own for containers."""
    uid = os.geteuid() or 7
    with bare.at("/etc/passwd").open("a") as file:
        file.write(f"engine:x:{uid}:{uid}::/var/lib/engine:/usr/sbin/nologin\n")
    write(bare, "/var/lib/systemd/linger/engine", "")
    write(bare, INIT, "")
    return bare


MAPPED = {"idMappings": {"gidmap": [
    {"container_id": 0, "host_id": 7, "size": 1}, {"container_id": 1, "host_id": 100_000, "size": 65_536},
]}}  # fmt: skip
INIT = "/usr/libexec/podman/catatonit"
SOCKET = "run/user/7/podman/podman.sock"


def of_user(machine: Machine) -> Wanted:
    """The socket is the user's, as systemd makes it."""
    os.chown(machine.at(f"/{SOCKET}"), 7, 7)
    return Wanted("node", engine=f"unix:///{SOCKET}")


@pytest.mark.skipif(os.geteuid() != 0, reason="a socket is given to another user")
def test_a_rootless_engine_has_its_user_run_the_broker(own: Machine) -> None:
    write(own, "/etc/passwd", own.text("/etc/passwd").replace(f":{os.geteuid() or 7}:", ":7:"))
    with podman(own, SOCKET, {**MAPPED, "cgroupControllers": ["cpu", "memory", "pids"]}) as url:
        wanted = of_user(own)
        assert found(own, "engine", wanted).detail == f"podman 4.3.1 rootless at {url}"
        assert found(own, "engine's limits", wanted).state == "ok"
        assert found(own, "engine's user", wanted).detail.startswith("engine; the broker runs as that user")
        assert found(own, "engine's containers", wanted).state == "failed", "what python -m tests.kinds saw"
        plain = config(own, url)
        assert plain["users"] == {
            "core": "cloister-core", "intake": "cloister-intake", "broker": "engine", "link": "cloister-link",
        }  # fmt: skip
        assert plain["engine"]["job_group"] == 100_000 + JOB_GROUP - 1
        own.at("/var/lib/systemd/linger/engine").unlink()
        seen = found(own, "engine's user", wanted)
        assert seen.state == "warning" and "loginctl enable-linger engine" in seen.cure


@pytest.mark.skipif(os.geteuid() != 0, reason="a socket is given to another user")
@pytest.mark.parametrize(
    ("host", "info", "what", "says"),
    [
        ({**MAPPED, "cgroupControllers": ["memory", "pids"]}, {}, "engine's limits", "may not bound cpu"),
        ({**MAPPED, "cgroupControllers": None}, {}, "engine's limits", "cpu, memory, pids"),
        ({**MAPPED}, {"CgroupVersion": "1"}, "engine's limits", "nothing on cgroup version 1"),
        ({"cgroupControllers": ["cpu", "memory", "pids"]}, {}, "engine's user", "no group for jobs"),
    ],
)
def test_a_rootless_engine_that_cannot_hold_jobs_is_refused(
    own: Machine, host: dict[str, object], info: dict[str, object], what: str, says: str
) -> None:
    write(own, "/etc/passwd", own.text("/etc/passwd").replace(f":{os.geteuid() or 7}:", ":7:"))
    more = {
        "/version": {"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]},
        "/info": {"SecurityOptions": ["name=rootless"], "CgroupVersion": "2", **info},
        "/v4.0.0/libpod/info": {"host": host},
    }
    with engine(own.root, "4.3.1", SOCKET, more):
        seen = found(own, what, of_user(own))
    assert seen.state == "failed" and says in seen.detail and seen.cure


def test_a_docker_whose_users_are_remapped_counts_the_jobs_group_otherwise(bare: Machine) -> None:
    remapped = {"DockerRootDir": "/var/lib/docker/231072.231072", "SecurityOptions": ["name=seccomp", "name=userns"]}
    with docker(bare, **remapped):
        plain = config(bare)
    assert plain["engine"]["job_group"] == 231_072 + JOB_GROUP
    assert plain["users"]["broker"] == "cloister-broker"
    with docker(bare):
        assert "job_group" not in config(bare)["engine"]


def test_jobs_have_the_group_that_the_product_gives_them() -> None:
    assert UsersConfig().job_gid == JOB_GROUP


def test_a_podman_without_an_init_for_containers_is_refused(own: Machine) -> None:
    """It would take every image and make no container: Debian only recommends the program."""
    with podman(own, "run/podman/podman.sock", MAPPED):
        own.at(INIT).unlink()
        seen = found(own, "engine")
        assert seen.state == "failed" and seen.cure == "apt-get install catatonit"
        write(own, "/etc/containers/containers.conf", '[containers]\ninit_path = "/usr/bin/tini"\n')
        assert found(own, "engine").state == "ok"


def test_a_bundle_with_podman_brings_its_init() -> None:
    assert "catatonit" in debs.ENGINES["podman"]


def test_a_users_own_engine_is_named_and_never_taken(bare: Machine) -> None:
    with podman(bare, SOCKET) as url:
        seen = found(bare, "engine")
        assert seen.state == "failed" and seen.cure == f"is it for jobs? --engine {url}"


@pytest.mark.engine
def test_the_real_engine_is_the_kind_that_it_says(bare: Machine) -> None:
    """The one that the tests of jobs run on, as the product asks it and as the installer does."""
    kind, asked = kind_of(Machine(), ENGINE_URL), ContainerEngine(ENGINE_URL)
    assert kind is not None and (kind.name, kind.rootless) == (asked.kind, asked.users().rootless)
    assert kind.job_group == asked.users().group_outside(JOB_GROUP)
    assert json.dumps(kind.info) != "{}"


@pytest.mark.parametrize(
    ("lines", "state", "says"),
    [
        (("cloister-core,ok,ok,15360,0,20480,,4,0,0,",), "warning", "cloister-core has 15 of 20 MiB"),
        (("root,ok,ok,20,0,100,,4,0,0,", "cloister-link,ok,ok,1,0,0,,1,0,0,"), "ok", "no user cloister-* is held"),
    ],
)
def test_quotas_say_whom_they_hold(bare: Machine, lines: tuple[str, ...], state: str, says: str) -> None:
    write(bare, "/proc/self/mounts", "/dev/b /var/lib/cloister xfs rw,usrquota 0 0\n")
    assert found(bare, "quotas").state == "warning" and "repquota is not installed" in found(bare, "quotas").detail
    head = "User,BlockStatus,FileStatus,BlockUsed,BlockSoftLimit,BlockHardLimit,BlockGrace,FileUsed"
    write_script(bare.at("/usr/bin/repquota"), f"print({chr(10).join((head, *lines))!r})\n")
    seen = found(bare, "quotas")
    assert seen.state == state and says in seen.detail

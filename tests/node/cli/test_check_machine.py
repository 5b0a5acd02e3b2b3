"""`cloister check` about the machine: processors and GPUs as the configuration has them, and as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from containers.engine import ContainerEngine, EngineUsers
from containers.gpu import GpuOffer
from node.cli.it.check_machine import _cards, _gpus, _job_data, _memory, _processors, confinement, machine
from node.host.config import NodeConfig, load_config
from tests.containers.bench import ENGINE_URL
from tests.node.host.minimal import MINIMAL
from tests.sim import nvidia
from tests.sim.nvidia import CARDS

# what an H100 "80GB" has by its driver, and what the example once said
H100_MIB, H100_SAID = 81_559, 85_899_345_920


def load(
    folder: Path, extra: str = "", *, cards: tuple[str, ...] = CARDS[:2], size: int = 80_000_000_000
) -> NodeConfig:
    named = "".join(f'[[schedule.gpus]]\nid = "{card}"\nmemory_bytes = {size}\n' for card in cards)
    path = folder / "node.toml"
    path.write_text(f"{MINIMAL}{extra}{named}")
    return load_config(path)


def test_processors_that_are_promised_and_not_there(tmp_path: Path) -> None:
    config = load(tmp_path, "[limits]\ncpus = 4.0\n")
    assert _processors(config, 16)["state"] == "ok"
    found = _processors(config, 2)
    assert found["state"] == "warning" and "this machine has 2" in found["detail"]


@pytest.mark.parametrize(
    ("memory", "there", "state", "mend"),
    [(8 << 30, 64 << 30, "ok", ""), (8 << 30, 16 << 30, "warning", "concurrent_jobs = 2"),
     (8 << 30, 4 << 30, "missing", f"memory_bytes = {2 << 30}")],
)  # fmt: skip
def test_memory_that_is_promised_and_not_there(tmp_path: Path, memory: int, there: int, state: str, mend: str) -> None:
    [found] = _memory(load(tmp_path, f"[limits]\nmemory_bytes = {memory}\n", cards=()), there)
    assert found["state"] == state and mend in found["mend"]


@pytest.mark.parametrize(
    ("files", "engine", "state", "said"),
    [
        ({}, ("seccomp",), "ok", "neither SELinux nor AppArmor"),
        ({"fs/selinux/enforce": "1"}, ("seccomp", "selinux"), "ok", "SELinux is enforcing; the engine uses selinux"),
        ({"fs/selinux/enforce": "0"}, ("seccomp",), "warning", "SELinux is permissive; the engine uses none"),
        ({"module/apparmor/parameters/enabled": "Y\n"}, ("apparmor", "seccomp"), "ok", "AppArmor is on"),
        ({"module/apparmor/parameters/enabled": "N\n"}, ("seccomp",), "ok", "neither"),
        ({}, (), "warning", "no seccomp"),
    ],
)
def test_what_confines_containers_is_said(
    tmp_path: Path, files: dict[str, str], engine: tuple[str, ...], state: str, said: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = confinement(engine, tmp_path)
    assert found["state"] == state and said in found["detail"]


def test_the_way_in_which_each_gpu_comes(tmp_path: Path) -> None:
    spec = nvidia.write_spec(tmp_path / "cdi", nvidia.cdi_spec(CARDS[:1]))
    both = GpuOffer("docker", "26.1.5", (spec.parent,), None, frozenset({"runc", "nvidia"}))
    found = _gpus(load(tmp_path), both)
    assert found["state"] == "ok" and "1 by CDI, 1 by NVIDIA's runtime" in found["detail"]
    forced = _gpus(load(tmp_path, 'runtime = "nvidia"\n'), both)
    assert "2 by NVIDIA's runtime" in forced["detail"]


@pytest.mark.parametrize(
    ("offer", "runtime", "cure"),
    [
        (GpuOffer("docker", "20.10.24"), "", '"cdi": true'), (GpuOffer("podman", "4.3.1"), "", "Podman 5.4 or newer"),
        (GpuOffer("docker", "26.1.5", (Path("/nonexistent"),)), "", "nvidia-ctk cdi generate"),
        (GpuOffer("docker", "26.1.5", (Path("/nonexistent"),)), "runsc", "out of [engine]"),
    ],
)  # fmt: skip
def test_a_gpu_that_the_engine_cannot_give_and_the_cure(
    tmp_path: Path, offer: GpuOffer, runtime: str, cure: str
) -> None:
    found = _gpus(load(tmp_path, f'runtime = "{runtime}"\n' if runtime else ""), offer)
    assert found["state"] == "missing" and cure in found["mend"] and "gpu_unavailable" in found["detail"]


def cards(
    config: NodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: dict[str, int]
) -> tuple[str, str]:
    program = nvidia.nvidia_smi(tmp_path / "bin", listed)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    [found] = _cards(config)
    return found["state"], found["detail"]


def test_what_the_driver_says_of_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = dict.fromkeys(CARDS, H100_MIB)
    assert cards(load(tmp_path), tmp_path, monkeypatch, there) == ("ok", "2 found")
    state, detail = cards(load(tmp_path, size=H100_SAID), tmp_path, monkeypatch, there)
    assert state == "warning" and f"{H100_MIB << 20} bytes" in detail
    state, detail = cards(load(tmp_path), tmp_path, monkeypatch, {CARDS[0]: H100_MIB})
    assert state == "missing" and detail == f"{CARDS[1]} is not in this machine"


def test_a_driver_that_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nvidia-smi` says so in a sentence, with a status; whatever it says is no list."""
    program = nvidia.nvidia_smi(tmp_path / "bin", {})
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    [found] = _cards(load(tmp_path))
    assert found["state"] == "missing" and "mismatch" not in found["detail"]
    program.write_text("#!/bin/sh\necho 'No devices were found'\n")
    assert [each["state"] for each in _cards(load(tmp_path))] == ["missing"]


def test_slices_and_machines_without_the_program_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia.nvidia_smi(tmp_path / "bin", {})
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    assert _cards(load(tmp_path, cards=("MIG-a",))) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _cards(load(tmp_path)) == []


def test_an_engine_that_does_not_answer_is_another_findings(tmp_path: Path) -> None:
    assert machine(load(tmp_path, f'socket = "unix://{tmp_path}/no.sock"\n')) == []


@pytest.mark.parametrize(
    ("written", "users", "state", "said"),
    [
        ("", EngineUsers(False, (0, 0), True), "ok", "65532"),
        ("", EngineUsers(False, (231072, 231072), True), "missing", "[engine] job_group = 296604"),
        ("job_group = 296604\n", EngineUsers(False, (231072, 231072), True), "ok", "296604"),
        ("", EngineUsers(True, (0, 0), True), "missing", "/etc/subgid"),
        ("", EngineUsers(True, (0, 0), True, ((0, 1000, 1), (1, 100000, 65536))), "missing", "job_group = 165531"),
        ("job_group = 165531\n", EngineUsers(True, (0, 0), True, ((0, 1000, 1), (1, 100000, 65536))), "ok", "165531"),
    ],
)
def test_who_may_read_what_a_job_is_shown_and_what_to_write(
    tmp_path: Path, written: str, users: EngineUsers, state: str, said: str
) -> None:
    separate = "[users]\ncore = 64101\nintake = 64102\nbroker = 64103\nlink = 64104\n"
    found = _job_data(load(tmp_path, written + separate, cards=()), users)
    assert found["state"] == state and said in f"{found['detail']} {found['mend']}"


def test_one_user_for_all_is_said_to_read_every_jobs_data(tmp_path: Path) -> None:
    found = _job_data(load(tmp_path, cards=()), EngineUsers(False, (0, 0), True))
    assert (found["what"], found["state"]) == ("job data", "warning") and "[users]" in found["mend"]


@pytest.mark.engine
def test_on_a_real_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    config = load(tmp_path, f'socket = "{ENGINE_URL}"\n[limits]\ncpus = 4096\n')
    found = {each["what"]: each["state"] for each in machine(config)}
    # nobody has this card; NVIDIA's runtime, where the machine has it, would say so at the start
    by_runtime = "nvidia" in ContainerEngine(ENGINE_URL).offer().gpus.runtimes
    assert found.keys() == {"processors", "memory", "confinement", "job data", "engine disk", "gpus"}
    assert (found["processors"], found["job data"]) == ("warning", "warning")
    assert found["gpus"] == ("ok" if by_runtime else "missing")
    without = [each["what"] for each in machine(load(tmp_path, f'socket = "{ENGINE_URL}"\n', cards=()))]
    assert without == ["processors", "memory", "confinement", "job data", "engine disk"]
    json.dumps(machine(config))

"""A training job sees exactly the GPUs it was granted, by CDI and by NVIDIA's runtime alike.

On every commit with made-up cards (`tests.sim.nvidia`) on a real Docker 26: what is asked, what the engine says of it,
the canary, and every way in which a card cannot be given. Where there are cards, asked of the driver inside the sealed
container.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from containers import canary, gpu
from containers.engine import ContainerEngine
from containers.job_log import job_log
from containers.warm.pool import SandboxKey, WarmTask
from mediator.errors import Code, Denied
from mediator.types import ContainerSpec, Kind
from tests.containers.bench import LIMITS, MODEL, REPO, Bench, by_name, image_id, until
from tests.containers.spare import Spare
from tests.containers.test_canary import spec_of
from tests.containers.test_reference_job import Hospital, initial_model
from tests.containers.test_trust import House
from tests.sim import nvidia
from tests.sim.nvidia import CARDS

pytestmark = pytest.mark.engine

UUID = re.compile(r"(GPU-[0-9a-f-]+)\)")
WAYS = ("cdi", "nvidia")


def granting(bench: Bench, runtime: str = "") -> Bench:
    """The bench at a site that lends sixteen GPUs."""
    ceiling = replace(bench.site.ceiling, gpus=16, gpu_memory_bytes=1 << 40)
    bench.site = replace(bench.site, ceiling=ceiling, runtime=runtime)
    return bench


def granted(bench: Bench, gpus: tuple[str, ...], job: str = "job") -> ContainerSpec:
    return bench.spec(job, resources=replace(LIMITS, gpus=len(gpus), pids=256), gpu_devices=gpus)


def seen(bench: Bench, job: str, gpus: tuple[str, ...]) -> tuple[set[str], int, int]:
    """What a job finds that was granted these: UUIDs, how many the driver lists, how many device nodes open."""
    broker = bench.broker()
    broker.prepare(bench.sign(granted(bench, gpus, job)))
    bench.give(job, 1, misbehave="show-gpus")
    assert until(broker.execute(job), "done", "exited", "failed").kind == "done"
    metrics = json.loads(by_name(broker.finalise(job, 1))["metrics.json"])
    lines = b"\n".join(job_log(ContainerEngine(bench.url), bench.site.site, job, follow=False)).decode()
    return set(UUID.findall(lines)), metrics["num-examples"], metrics["loss"]


def inspected(bench: Bench, job: str = "job") -> Mapping[str, Any]:
    engine = ContainerEngine(bench.url)
    found = [one.id for one in engine.containers(bench.site.site, job) if one.role != "keeper"]
    return engine.inspect(found[0]) or {}


# --- made-up cards, on a real engine --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the CDI engine's specs."""
    return tmp_path_factory.mktemp("cdi")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, specs: Path) -> Iterator[Mapping[str, Spare]]:
    """A Docker 26 with CDI, and one with NVIDIA's runtime and no CDI."""
    found = subprocess.run([REPO / "deploy/lib/newer_engines.sh"], check=True, capture_output=True, text=True).stdout
    programs = Path(found.strip()) / "programs"
    toolkit = tmp_path_factory.mktemp("toolkit")
    settings: dict[str, Mapping[str, Any]] = {
        "cdi": {"features": {"cdi": True}, "cdi-spec-dirs": [str(specs)]},
        "nvidia": {"runtimes": {"nvidia": {"path": str(nvidia.toolkit(toolkit))}}},
    }
    made: dict[str, Spare] = {}
    try:
        for way, setting in settings.items():
            more = (toolkit,) if way == "nvidia" else ()
            made[way] = Spare(tmp_path_factory.mktemp(f"engine-{way}"), setting, (programs, *more))
            made[way].start()
            made[way].load()
        yield made
    finally:
        for engine in made.values():
            engine.close()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made_up(tmp_path: Path, engines: Mapping[str, Spare], specs: Path, way: str) -> Iterator[Bench]:
    """The attacking job at a site with three made-up cards."""
    nvidia.write_spec(specs, nvidia.cdi_spec())
    url = engines[way].url
    bench = granting(Bench.make(tmp_path, image_id("cloister-attacker", url), url=url))
    yield bench
    bench.broker().clean([])


by_cdi_alone = pytest.mark.parametrize("way", ["cdi"], indirect=True)


def test_each_made_up_card_by_itself_and_none_where_none_is_granted(made_up: Bench) -> None:
    for number, card in enumerate(CARDS):
        assert seen(made_up, f"job-{number}", (card,)) == (set(), 0, 1)
    assert seen(made_up, "two", CARDS[1:]) == (set(), 0, 2)
    assert seen(made_up, "none", ()) == (set(), 0, 0)


def test_what_is_asked_is_what_the_engine_says_it_was_asked(made_up: Bench, way: str) -> None:
    made_up.broker().prepare(made_up.sign(granted(made_up, CARDS[:2])))
    asked = inspected(made_up)["HostConfig"]
    [request] = asked["DeviceRequests"]
    by_cdi = ("cdi", [f"nvidia.com/gpu={card}" for card in CARDS[:2]], [])
    wanted = by_cdi if way == "cdi" else ("", list(CARDS[:2]), [["gpu"]])
    assert (request["Driver"], request["DeviceIDs"], request["Capabilities"] or []) == wanted
    assert asked["Runtime"] == ("runc" if way == "cdi" else "nvidia")


def test_only_a_container_with_a_grant_runs_on_nvidias_runtime(made_up: Bench) -> None:
    made_up.broker().prepare(made_up.sign(granted(made_up, ())))
    assert inspected(made_up)["HostConfig"]["Runtime"] == "runc"
    keepers = [one.id for one in ContainerEngine(made_up.url).containers(made_up.site.site) if one.role == "keeper"]
    assert [docker.APIClient(made_up.url).inspect_container(each)["HostConfig"]["Runtime"] for each in keepers] == [
        "runc"
    ]


def test_the_canary_passes_with_a_card_and_speaks_for_every_card(made_up: Bench) -> None:
    broker = made_up.broker()
    prints = [
        broker.prepare(made_up.sign(granted(made_up, gpus, f"job-{number}"))).fingerprint
        for number, gpus in enumerate(((CARDS[0],), (CARDS[1],), ()))
    ]
    assert prints[0] == prints[1] != prints[2]
    probe = replace(spec_of(made_up, gpus=0), resources=replace(LIMITS, gpus=1, pids=256), gpu_devices=CARDS[:1])
    assert canary.run_canary(broker, made_up.sign(probe), prints[0]) == canary.CanaryResult(prints[0], True, ())


@by_cdi_alone
def test_a_changed_spec_asks_for_a_canary_of_its_own(made_up: Bench, specs: Path) -> None:
    """What a spec brings in, Docker shows nowhere: the driver's change must not ride on yesterday's canary."""
    before = made_up.broker().prepare(made_up.sign(granted(made_up, CARDS[:1]))).fingerprint
    nvidia.write_spec(specs, nvidia.cdi_spec(more={CARDS[0]: ["/dev/nvidia-uvm"]}))
    assert made_up.broker().prepare(made_up.sign(granted(made_up, CARDS[:1]))).fingerprint != before


@by_cdi_alone
def test_the_canary_finds_a_spec_that_brings_in_another_card(made_up: Bench, specs: Path) -> None:
    nvidia.write_spec(specs, nvidia.cdi_spec(more={CARDS[0]: ["/dev/nvidia1"]}))
    broker = made_up.broker()
    job = broker.prepare(made_up.sign(granted(made_up, CARDS[:1])))
    probe = replace(spec_of(made_up, gpus=0), resources=replace(LIMITS, gpus=1, pids=256), gpu_devices=CARDS[:1])
    result = canary.run_canary(broker, made_up.sign(probe), job.fingerprint)
    assert result.failures == ("no_more_gpus_than_granted",)


# --- cards that cannot be given -------------------------------------------------------------------------------

OTHER = ("GPU-ffffffff-0000-4000-8000-00000000cafe",)


@by_cdi_alone
def test_a_card_that_no_spec_names_is_refused_before_anything_is_made(made_up: Bench) -> None:
    with pytest.raises(Denied) as caught:
        made_up.broker().prepare(made_up.sign(granted(made_up, OTHER)))
    assert [reason.code for reason in caught.value.reasons] == [Code.GPU_UNAVAILABLE]
    assert OTHER[0] in str(caught.value) and "nvidia-ctk cdi generate" in caught.value.hint
    assert made_up.containers() == []


def test_an_engine_with_neither_way_is_refused_before_anything_is_made(bench: Bench) -> None:
    """The engine that the other tests use: Debian 12's, which has no CDI."""
    lending = granting(bench)
    if "nvidia" in ContainerEngine(lending.url).offer().gpus.runtimes:
        pytest.skip("this machine's engine has NVIDIA's runtime")
    with pytest.raises(Denied) as caught:
        lending.broker().prepare(lending.sign(granted(lending, CARDS[:1])))
    assert [reason.code for reason in caught.value.reasons] == [Code.GPU_UNAVAILABLE]
    assert lending.containers() == []


def broken(way: str, specs: Path, card: str) -> tuple[str, ...]:
    """GPUs that the engine takes a request for, and fails to give at the start."""
    if way == "nvidia":
        return OTHER
    spec = nvidia.cdi_spec()
    for device in spec["devices"]:
        if device["name"] == card:
            device["containerEdits"]["deviceNodes"][0]["hostPath"] = "/dev/no-such-card"
    nvidia.write_spec(specs, spec)
    return (card,)


def test_a_card_that_fails_at_the_start_is_neither_the_images_fault_nor_an_engine_that_is_away(
    made_up: Bench, specs: Path, way: str
) -> None:
    gpus = broken(way, specs, CARDS[2])
    broker = made_up.broker()
    broker.prepare(made_up.sign(granted(made_up, gpus)))
    with pytest.raises(Denied) as caught:
        until(broker.execute("job"), "done", "exited")
    assert [reason.code for reason in caught.value.reasons] == [Code.GPU_UNAVAILABLE]
    assert made_up.records[-1] == ("execute", "job", "gpu_unavailable")


@pytest.fixture
def house(made_up: Bench, tmp_path: Path) -> Iterator[House]:
    (tmp_path / "desk").mkdir()
    made = House(made_up, tmp_path / "desk")
    yield made
    made.boxes.shut_down()


def serve(house: House, gpus: tuple[str, ...], image: str = "") -> object:
    key = SandboxKey("run", "permit", 1, "sha256:" + "0" * 64, Kind.TRAIN, image or house.bench.image, "".join(gpus))
    bench = replace(house.bench, image=image or house.bench.image)

    def spec(name: str, data: Path, inbox: Path) -> ContainerSpec:
        return replace(granted(bench, gpus), job=name, data_dir=str(data), in_dir=str(inbox))

    task = WarmTask(Kind.TRAIN, 1, {}, MODEL)
    return house.boxes.serve(key, task, lambda at: None, spec, limit_s=60, guard=lambda _: None, gpus=gpus)


def test_a_canary_without_its_card_fails_no_sandbox_and_stops_no_job(house: House, specs: Path, way: str) -> None:
    serve(house, ())
    gpus = broken(way, specs, CARDS[2])
    with pytest.raises(Denied) as caught:
        serve(house, gpus)
    assert [reason.code for reason in caught.value.reasons] == [Code.GPU_UNAVAILABLE]
    assert house.canaries() == [("done", "")]
    assert [key.limits_sha256 for key in house.boxes.running()] == [""]


@pytest.mark.parametrize("way", ["nvidia"], indirect=True)
def test_a_card_that_goes_away_after_its_canary_ends_the_job_by_name(house: House) -> None:
    assert by_name(serve(house, CARDS[:1]))["model.safetensors"] == MODEL
    with pytest.raises(Denied) as caught:
        serve(house, OTHER)
    assert [reason.code for reason in caught.value.reasons] == [Code.GPU_UNAVAILABLE]
    assert house.canaries() == [("done", "")]


# --- cards of this machine ------------------------------------------------------------------------------------


@pytest.fixture
def real(bench: Bench, way: str) -> Bench:
    """The bench on this machine's engine, whose cards come by `way`."""
    made = granting(bench, "nvidia" if way == "nvidia" else "")
    try:
        if gpu.decide(ContainerEngine(made.url).offer().gpus, gpus(), made.site.runtime) == way:
            return made
    except Denied:
        pass
    pytest.skip(f"this engine gives its GPUs not by {way}")


def gpus() -> tuple[str, ...]:
    """Every GPU of this machine, by UUID."""
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    return tuple(UUID.findall(listed))


def needs_gpu(test: Any) -> Any:
    without = shutil.which("nvidia-smi") is None
    return pytest.mark.needs_gpu(pytest.mark.skipif(without, reason="no GPU on this machine")(test))


@needs_gpu
def test_each_gpu_by_itself(real: Bench) -> None:
    for number, each in enumerate(gpus()):
        assert seen(real, f"job-{number}", (each,)) == ({each}, 1, 1)


@needs_gpu
def test_all_of_them_and_all_but_one(real: Bench) -> None:
    every = gpus()
    assert seen(real, "all", every) == (set(every), len(every), len(every))
    if len(every) > 1:
        assert seen(real, "fewer", every[1:]) == (set(every[1:]), len(every) - 1, len(every) - 1)


@needs_gpu
def test_a_job_without_a_grant_sees_none(real: Bench) -> None:
    assert seen(real, "none", ()) == (set(), 0, 0)


@needs_gpu
def test_the_reference_job_trains_on_the_card_and_gives_the_same_bytes_twice(real: Bench) -> None:
    """Its image is built on request: deploy/lib/images.sh cloister-job-torch-cuda."""
    try:
        job = replace(real, image=image_id("cloister-job-torch-cuda", real.url))
    except docker.errors.ImageNotFound:
        pytest.skip("cloister-job-torch-cuda is not built")
    model = (initial_model(job) / "initial.safetensors").read_bytes()
    hospital = Hospital(job, job.broker(), "train", 0, 60, seed=3, gpus=gpus()[:1])
    first, second = hospital.ask("train", model), hospital.ask("train", model)
    assert first == second and first["model.safetensors"] != model
    ask = ["nvidia-smi", "--query-compute-apps=used_memory", "--format=csv,noheader,nounits"]
    used = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    assert any(int(mib) > 100 for mib in used), "a warm container keeps its place on the card"

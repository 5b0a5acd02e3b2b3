"""Engines in trouble, and engines with another wall: a dockerd of the tests' own that stops answering, is killed,
restarted, filled up, or runs its containers on gVisor."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import docker
import pytest

from containers import canary
from containers.engine import ContainerEngine
from containers.warm.pool import Sandboxes, SandboxKey, WarmTask
from mediator.errors import Denied, EngineUnavailable, NotNow
from mediator.types import Kind
from tests.containers.bench import LIMITS, MODEL, Bench, by_name, image_id, until
from tests.containers.contract import RunnerContract
from tests.containers.spare import Spare
from tests.containers.test_canary import probe, spec_of

pytestmark = pytest.mark.engine

# gVisor's kernel keeps its own account of each process: 48 of them need more than a small job's memory
ROOM = 1 << 30
# what `deploy/lib/engine.sh` registers where runsc is installed
GVISOR = {"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--network=none"]}}}


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spare]:
    engine = Spare(tmp_path_factory.mktemp("spare"), GVISOR)
    try:
        engine.start()
        engine.load()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def bench(tmp_path: Path, spare: Spare) -> Iterator[Bench]:
    made = Bench.make(tmp_path, image_id("cloister-attacker", spare.url), url=spare.url)
    yield made
    made.broker().clean([])


# --- gVisor ---------------------------------------------------------------------------------------------------


class TestOnGVisor(RunnerContract):
    @pytest.fixture
    def bench(self, bench: Bench) -> Bench:
        return replace(bench, site=replace(bench.site, runtime="runsc"))

    @pytest.fixture
    def runner(self, bench: Bench):
        return bench.broker()

    def test_the_canary_passes_on_gvisors_kernel(self, bench: Bench) -> None:
        broker = bench.broker()
        job = broker.prepare(bench.sign(bench.spec(resources=replace(LIMITS, memory_bytes=ROOM))))
        result = canary.run_canary(broker, bench.sign(spec_of(bench, memory_bytes=ROOM)), job.fingerprint)
        assert result == canary.CanaryResult(job.fingerprint, True, ())

    def test_a_sandbox_that_is_not_on_gvisor_after_all_is_found_out(self, bench: Bench) -> None:
        """The engine runs the canary on the machine's kernel, and its account says otherwise."""
        report = probe(bench, lambda arguments: arguments["HostConfig"].update(Runtime="runc"))
        assert "system_calls_are_filtered" in report

    def test_a_fork_bomb_stops_at_the_limit(self, bench: Bench) -> None:
        broker = bench.broker()
        broker.prepare(bench.sign(bench.spec(resources=replace(LIMITS, memory_bytes=ROOM))))
        bench.give("job", 1, misbehave="fork-bomb")
        assert until(broker.execute("job"), "done", "exited").kind == "done"
        children = json.loads(by_name(broker.finalise("job", 1))["metrics.json"])["num-examples"]
        assert 0 < children < LIMITS.pids


def test_a_runtime_that_the_engine_has_not_is_refused(bench: Bench) -> None:
    other = replace(bench, site=replace(bench.site, runtime="kata"))
    with pytest.raises(Denied, match="not_sealed"):
        other.broker().prepare(other.sign(other.spec()))
    assert other.containers() == []


# --- an engine that is not what it was ------------------------------------------------------------------------


def test_an_engine_that_stops_answering_is_named_and_goes_on(bench: Bench, spare: Spare) -> None:
    events = bench.start(bench.broker())
    until(events, "done")
    spare.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(EngineUnavailable):
            bench.broker(engine=ContainerEngine(bench.url, timeout_s=1)).finalise("job", 1)
        assert time.monotonic() - began < 10
        assert bench.records[-1] == ("finalise", "job", "engine_unavailable")
    finally:
        spare.signal(signal.SIGCONT)
    again = bench.broker()
    assert until(again.execute("job"), "done").task == 1
    assert by_name(again.finalise("job", 1))["model.safetensors"] == MODEL


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_restarts_ends_the_job_by_name_and_the_task_is_done_again(
    bench: Bench, spare: Spare, how: signal.Signals
) -> None:
    """The node's containers over a real broker: the task that was lost is not failed, and is served again."""
    broker = bench.broker()
    boxes = Sandboxes(broker, bench.root / "work", bench.sign, lambda *_: None, lambda *_: None, lambda _: None)
    ended: list[BaseException] = []

    def lose() -> None:
        try:
            serve(boxes, bench, misbehave="over-time")
        except NotNow as error:
            ended.append(error)

    worker = threading.Thread(target=lose)
    worker.start()
    wait_until(lambda: any(role == "job" for _, role in bench.containers()) and given(bench))
    spare.signal(how)
    spare.start()
    worker.join(60)
    assert ["engine" in str(error) for error in ended] == [True]
    boxes.sweep()
    assert bench.containers() == []
    assert by_name(serve(boxes, bench))["model.safetensors"] == MODEL
    boxes.shut_down()
    assert bench.containers() == []


def serve(boxes: Sandboxes, bench: Bench, **config: object) -> object:
    key = SandboxKey("run", "permit", 1, "sha256:" + "0" * 64, Kind.TRAIN, bench.image, "0" * 64)
    return boxes.serve(
        key,
        WarmTask(Kind.TRAIN, 1, config, MODEL),
        make_view=view,
        make_spec=lambda name, data, inbox: replace(bench.spec(), job=name, data_dir=str(data), in_dir=str(inbox)),
        limit_s=60,
        guard=lambda _: None,
    )


def view(folder: Path) -> None:
    (folder / "study.txt").write_text("pixels")


def given(bench: Bench) -> bool:
    return any((bench.root / "work").glob("train-*/in/tasks/1"))


def wait_until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_engine_without_disk_is_named_and_leaves_nothing_half_made(bench: Bench, spare: Spare) -> None:
    filler = spare.disk / "filler"
    with open(filler, "wb") as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
        except OSError:
            pass
    try:
        with pytest.raises(EngineUnavailable, match="disk is full"):
            bench.broker().prepare(bench.sign(bench.spec()))
        assert bench.records[-1] == ("prepare", "job", "engine_unavailable")
    finally:
        filler.unlink()
    events = bench.start(bench.broker())
    assert until(events, "done", "exited").task == 1


def test_the_canary_of_a_restarted_engine_is_another(bench: Bench, spare: Spare) -> None:
    before = bench.broker().prepare(bench.sign(bench.spec())).fingerprint
    spare.signal(signal.SIGTERM)
    spare.start()
    now = bench.spec().issued + timedelta(seconds=1)
    after = bench.broker().prepare(bench.sign(replace(bench.spec(), issued=now))).fingerprint
    assert before != after
    assert docker.APIClient(bench.url).ping()

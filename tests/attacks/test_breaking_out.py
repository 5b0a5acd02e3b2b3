"""Ways out of the sandbox, tried from inside it by a real container: none works, and nothing around has changed.

One container makes all the attempts, task after task, beside another job at work; what each attack tried stands in
`containers/images/job-attacker/attacks.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import docker
import pytest

from containers.broker import Broker
from containers.engine import ContainerEngine
from mediator.ports import JobEvent
from tests.attacks.surroundings import SECRET, nothing_else_changes
from tests.containers.bench import LIMITS, MODEL, Bench, by_name, image_id, until

pytestmark = pytest.mark.engine

ATTACKS = {  # the attack, and how many ways it tries at least: none may be lost unnoticed
    "dns": 4, "tcp": 5, "udp": 5, "metadata-address": 6, "raw-sockets": 8, "unix-sockets": 4, "engine-socket": 20,
    "keyctl": 5, "user-namespaces": 16, "ptrace": 7, "mount": 12, "kernel-calls": 16, "proc-and-sys": 18,
    "device-nodes": 27, "write-data": 16, "other-jobs": 5,
}  # fmt: skip


@dataclass
class Attacked:
    bench: Bench
    broker: Broker
    events: Iterator[JobEvent]
    tasks: int = 0

    def attack(self, name: str, **config: object) -> dict[str, int]:
        self.tasks += 1
        self.bench.give("job", self.tasks, misbehave=name, **config)
        assert until(self.events, "done", "exited") == JobEvent("done", task=self.tasks)
        files = by_name(self.broker.finalise("job", self.tasks))
        assert files["model.safetensors"] == MODEL
        return dict(json.loads(files["metrics.json"]))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    bench = Bench.make(tmp_path_factory.mktemp("attacked"), image_id("cloister-attacker"))
    broker = bench.broker()
    try:
        broker.prepare(bench.sign(bench.spec()))
        with nothing_else_changes(bench, broker) as around:
            made = Attacked(bench, broker, broker.execute("job"))
            around.before = around.look()
            yield made
    finally:
        broker.clean([])


@pytest.mark.parametrize("attack", [*ATTACKS])
def test_no_way_leads_out(attacked: Attacked, attack: str) -> None:
    answer = attacked.attack(attack, secret=SECRET)
    engine = ContainerEngine(attacked.bench.url)
    main = next(one for one in engine.containers(attacked.bench.site.site, "job") if one.role == "job")
    said = docker.APIClient(attacked.bench.url).logs(main.id).decode(errors="replace").splitlines()[-1:]
    assert answer["tries"] >= ATTACKS[attack]
    assert answer["through"] == 0, said


def test_scratch_space_is_the_jobs_own_memory_and_has_an_end(attacked: Attacked) -> None:
    limits = LIMITS
    written = attacked.attack("fill-scratch")["num-examples"]
    # /tmp as the permit says, and a quarter of the memory for data loaders in /dev/shm
    assert 0 < written <= limits.tmp_bytes + limits.memory_bytes // 4


def test_open_files_have_an_end(attacked: Attacked) -> None:
    assert 1_000 < attacked.attack("open-files")["num-examples"] <= 16_384


def test_the_job_that_tried_all_this_still_does_its_work(attacked: Attacked) -> None:
    assert attacked.attack("none") == {"loss": 0.5, "num-examples": 64}

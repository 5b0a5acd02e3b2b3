"""The self-test's job on the real engine: sealed as a job is, and nothing else than the sentinel's image."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from containers import canary, sandbox
from containers.warm.pool import Sandboxes
from mediator.errors import Code, Denied
from mediator.types import ContainerSpec
from node.core.context import Folders
from node.core.tasks.self_test import SelfTest
from node.core.tasks.trust_sandbox import SandboxTrust
from tests.containers.bench import LIMITS, VERDICT_KEY, Bench
from tests.containers.test_canary import WEAKER
from tests.node.core.desk import Desk

pytestmark = pytest.mark.engine


class House:
    """A core over a broker on the real engine; `weaken` is what goes wrong with a container of this role."""

    def __init__(self, bench: Bench, root: Path) -> None:
        self.bench, self.weaken, self.made = bench, ("", ""), list[tuple[str, dict[str, Any]]]()
        desk = Desk(root, documents=False, random_bytes=secrets.token_bytes, ceiling=LIMITS)
        folders = desk.core.folders
        work = Folders(
            folders.jobs, folders.releases, folders.spool, folders.datasets, folders.handover, bench.root / "work"
        )
        self.core = replace(desk.core, folders=work, keys=replace(desk.core.keys, verdict=VERDICT_KEY))
        self.desk, self.broker = desk, bench.broker(self.build)
        trust = SandboxTrust(self.core, self.run_canary)
        trust.sandboxes = Sandboxes(
            self.broker, bench.root / "work", bench.sign, trust.require, lambda *_: None, lambda _: None
        )
        self.test = SelfTest(self.core, self.broker, trust, bench.site.sentinel)

    def build(self, *given: Any) -> dict[str, Any]:
        arguments = copy.deepcopy(sandbox.create_arguments(*given))
        what, role = self.weaken
        if given[1] == role:
            WEAKER[what](arguments)
        self.made.append((given[1], arguments))
        return arguments

    def run_canary(self, name: str, spec: ContainerSpec, expected: str | None) -> tuple[str, tuple[str, ...]]:
        site, now = self.bench.site, self.bench.spec().issued
        probe = canary.canary_spec(spec, name=name, sentinel=site.sentinel, probe_root=site.probe_root, now=now)
        assert expected is not None
        return expected, canary.run_canary(self.broker, self.bench.sign(probe), expected).failures


@pytest.fixture
def house(bench: Bench, tmp_path: Path) -> Iterator[House]:
    (tmp_path / "desk").mkdir()
    yield House(bench, tmp_path / "desk")


def test_it_runs_sealed_as_a_job_does_after_a_canary_of_the_same_sandbox(house: House) -> None:
    house.desk.now = house.bench.spec().issued
    found = house.test.run("it_admin")
    assert found.reason is None, found.reason
    assert [entry.action for entry in house.desk.log()[-2:]] == ["canary", "self_test"]
    assert house.bench.containers() == [] and not list((house.bench.root / "work").glob("self-test-*"))
    mine = next(arguments for role, arguments in house.made if role == "self_test")
    as_job = sandbox.create_arguments(
        replace(house.bench.spec(), purpose="job", resources=LIMITS), "job", house.bench.site, mine["Image"]
    )
    assert mine["HostConfig"].keys() == as_job["HostConfig"].keys()
    for key, value in as_job["HostConfig"].items():
        if key != "Mounts":
            assert mine["HostConfig"][key] == value, key


def test_a_weaker_container_of_it_is_not_started(house: House) -> None:
    house.desk.now = house.bench.spec().issued
    house.weaken = ("network", "self_test")
    found = house.test.run("it_admin")
    assert found.reason is not None and found.reason.code is Code.NOT_SEALED
    assert house.desk.log()[-1].code == "not_sealed" and house.bench.containers() == []


def test_it_is_no_way_to_run_another_image_or_to_see_another_folder(bench: Bench) -> None:
    """Core's own signature opens no more by this purpose than by a job's."""
    broker = bench.broker()
    spec = bench.spec(job="self", purpose="self_test", image=bench.image)
    with pytest.raises(Denied) as refused:
        broker.prepare(bench.sign(spec))
    assert Code.IMAGE_NOT_APPROVED in {reason.code for reason in refused.value.reasons}
    bench.spec(job="other")
    for folder in (bench.root / "work" / "other" / "data", bench.root / "probe" / "self" / "data"):
        folder.mkdir(parents=True, exist_ok=True)
        with pytest.raises(Denied) as refused:
            broker.prepare(bench.sign(replace(spec, image=bench.site.sentinel, data_dir=str(folder))))
        assert {reason.code for reason in refused.value.reasons} == {Code.MOUNT_NOT_PERMITTED}
    assert bench.containers() == []

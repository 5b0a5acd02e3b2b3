"""A small job of nobody's: it goes a job's way, whatever goes wrong is told and recorded, and nothing of it stays."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from containers import self_test_job
from mediator.errors import Code, NotNow, Reason
from node.core.tasks.self_test import SelfTest
from node.core.tasks.trust_sandbox import SandboxTrust
from tests.mediator import samples
from tests.node.core.desk import Desk, Written
from tests.sim.runner import FakeRunner

SENTINEL = "sha256:" + "5" * 64
Answer = dict[str, bytes]


class Ground:
    """A core whose engine is played: the sentinel's program is the real one, and `spoil` changes its answer."""

    def __init__(self, root: Path) -> None:
        self.desk = Desk(root, documents=False, random_bytes=secrets.token_bytes)
        self.runner = FakeRunner(self.desk.core.keys.verdict.verify_key, {SENTINEL: self._job})
        self.desk.boxes._runner = self.desk.boxes._removal._runner = self.runner
        self.gives_way: tuple[str, ...] = ()
        self.canaries: list[str | None] = []
        self.trust = SandboxTrust(self.desk.core, self._canary)
        self.trust.sandboxes = self.desk.boxes
        self.test = SelfTest(self.desk.core, self.runner, self.trust, SENTINEL)
        self.spoil: Callable[[Answer], Answer] = lambda answer: answer
        self.shown: list[str] = []

    def _job(self, task: Mapping[str, Any], model: bytes) -> Answer:
        data = Path(self.runner.specs[-1].data_dir)
        self.shown = sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())
        read = self_test_job.what_was_read(str(data))
        answer = {"model.safetensors": self_test_job.one_more(model), "metrics.json": json.dumps(read).encode()}
        return self.spoil(answer)

    def _canary(self, _name: str, _spec: object, expected: str | None) -> tuple[str, tuple[str, ...]]:
        self.canaries.append(expected)
        return expected or "f" * 64, self.gives_way

    def last(self) -> Written:
        return self.desk.log()[-1]

    def left(self) -> list[Path]:
        """Containers and folders of it that are still there."""
        folders = self.desk.core.folders
        return [*folders.jobs.iterdir(), *folders.work.iterdir(), *map(Path, self.runner.containers)]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_it_goes_a_jobs_way_and_leaves_a_record_and_nothing_else(ground: Ground) -> None:
    found = ground.test.run("it_admin.a.silva")
    assert found.reason is None and len(found.fingerprint) == 64
    assert ground.last() == Written("self_test", f"sandbox/{found.fingerprint}", "done", "")
    assert ground.shown == [
        "clinical.parquet", "manifest.json", *(f"studies/study-{n}/0001.dcm" for n in (1, 2, 3))
    ]  # fmt: skip
    (spec,) = ground.runner.specs
    assert (spec.purpose, spec.image) == ("self_test", SENTINEL)
    assert spec.resources.within(ground.desk.core.ceiling), "no more than any job may have"
    assert ground.left() == [] and ground.runner.terminated == [spec.job]


def test_the_canary_comes_before_it_once_a_day_and_where_it_gives_way_nothing_starts(ground: Ground) -> None:
    for _ in range(2):
        assert ground.test.run("it_admin").reason is None
    assert len(ground.canaries) == 1
    ground.desk.now += samples.DAY + samples.DAY
    ground.gives_way = ("network",)
    ground.shown = []
    found = ground.test.run("it_admin")
    assert found.reason is not None and found.reason.code is Code.CANARY_FAILED
    assert ground.shown == [] and ground.left() == []
    assert ground.last() == Written("self_test", f"sandbox/{found.fingerprint}", "failed", "canary_failed")


def zero_file(answer: Answer) -> Answer:
    return answer | {"model.safetensors": b""}


def another_number(answer: Answer) -> Answer:
    model = bytearray(answer["model.safetensors"])
    model[-1] ^= 1
    return answer | {"model.safetensors": bytes(model)}


def unread_data(answer: Answer) -> Answer:
    return answer | {"metrics.json": b'{"files": 4, "read": 1}'}


def no_json(answer: Answer) -> Answer:
    return answer | {"metrics.json": b"{"}


def one_more_file(answer: Answer) -> Answer:
    return answer | {"notes.txt": b"hello"}


def nothing(_answer: Answer) -> Answer:
    return {}


def broken(_answer: Answer) -> Answer:
    raise RuntimeError


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (zero_file, Code.HEADER_MALFORMED),
        (another_number, Code.CONTRACT_VIOLATION),
        (unread_data, Code.CONTRACT_VIOLATION),
        (no_json, Code.CONTRACT_VIOLATION),
        (one_more_file, Code.CONTRACT_VIOLATION),
        (nothing, Code.CONTRACT_VIOLATION),
        (broken, Code.RAISED_RUNTIME_ERROR),
    ],
)
def test_an_answer_that_is_not_that_jobs_is_told_and_recorded(
    ground: Ground, spoil: Callable[[Answer], Answer], code: Code
) -> None:
    ground.spoil = spoil
    found = ground.test.run("it_admin")
    assert found.reason is not None and found.reason.code is code
    assert ground.last() == Written("self_test", f"sandbox/{found.fingerprint}", "failed", code.value)
    assert ground.left() == []


def test_a_broker_that_refuses_is_told_and_one_whose_engine_is_away_is_safe_to_ask_again(ground: Ground) -> None:
    ground.runner.refusals["prepare"] = Reason(Code.NOT_SEALED, "network")
    found = ground.test.run("it_admin")
    assert found.reason == Reason(Code.NOT_SEALED, "network") and found.fingerprint == ""
    assert ground.last() == Written("self_test", "sandbox/unknown", "failed", "not_sealed")
    ground.runner.refusals.clear()
    ground.runner.away = True
    with pytest.raises(NotNow):
        ground.test.run("it_admin")
    assert ground.last() == Written("self_test", "sandbox/unknown", "failed", "internal")
    ground.runner.away = False
    assert ground.test.run("it_admin").reason is None and ground.left() == []


def test_a_paused_node_runs_it_and_takes_no_job_up_for_it(ground: Ground) -> None:
    ground.desk.core.switch.turn_on()
    assert ground.test.run("it_admin").reason is None
    assert ground.desk.core.switch.on
    with ground.desk.core.store.read() as snapshot:
        assert not snapshot.jobs()
        assert not snapshot.run_orders()


def test_an_output_is_read_as_strictly_as_gate_2_reads_one(ground: Ground) -> None:
    """A file with room for a message is refused, though its numbers are right."""

    def with_metadata(answer: Answer) -> Answer:
        model = answer["model.safetensors"]
        size = int.from_bytes(model[:8], "little")
        header = json.loads(model[8 : 8 + size]) | {"__metadata__": {"note": "hello"}}
        text = json.dumps(header).encode()
        return answer | {"model.safetensors": len(text).to_bytes(8, "little") + text + model[8 + size :]}

    ground.spoil = with_metadata
    found = ground.test.run("it_admin")
    assert found.reason is not None and found.reason.code is Code.METADATA_NOT_PERMITTED

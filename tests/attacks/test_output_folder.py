"""Attacks through `/out`, by a real container on the real engine. Each is refused, and the job never runs again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from containers.engine import ContainerEngine
from containers.volumes import RULES
from mediator.errors import Code, Denied
from mediator.release import metrics
from tests.containers.bench import LIMITS, Bench, by_name, until

pytestmark = pytest.mark.engine

ATTACKS = {
    "symlink": "not_a_regular_file",
    "symlink-to-data": "not_a_regular_file",
    "socket-file": "not_a_regular_file",
    "control-name": "unknown_name",
    "dotted-name": "unknown_name",
    "bytes-name": "unknown_name",
    "parent-name": "unknown_name",
    "many-names": "unknown_name",
    "fifo": "not_a_regular_file",
    "folder": "not_a_regular_file",
    "hard-link": "hard_link",
    "unknown-name": "unknown_name",
    "sparse-file": "too_large",
    "unreadable": "unreadable",
}


def main_of(bench: Bench) -> dict[str, object]:
    engine = ContainerEngine(bench.url)
    main = next(one.id for one in engine.containers(bench.site.site) if one.role == "job")
    return (engine.inspect(main) or {})["State"]


@pytest.mark.parametrize("attack", [*ATTACKS])
def test_what_is_no_plain_file_of_the_contract_is_refused_by_rule(bench: Bench, attack: str) -> None:
    broker = bench.broker()
    events = bench.start(broker, misbehave=attack)
    until(events, "done")
    with pytest.raises(Denied) as caught:
        broker.finalise("job", 1)
    assert [(reason.code, reason.detail) for reason in caught.value.reasons] == [
        (Code(f"contract_{ATTACKS[attack]}"), RULES[ATTACKS[attack]])
    ]
    assert bench.records[-1] == ("finalise", "job", f"contract_{ATTACKS[attack]}")
    assert until(events, "stopped", "exited").kind == "stopped"
    assert main_of(bench)["Running"] is False


@pytest.mark.parametrize("attack", ["fill-bytes", "fill-files"])
def test_a_full_folder_is_seen_and_stays_within_its_caps(bench: Bench, attack: str) -> None:
    broker = bench.broker()
    events = bench.start(broker, misbehave=attack)
    kinds = {next(events).kind}
    while not {"out_full", "done"} <= kinds:
        kinds.add(next(events).kind)
    if attack == "fill-files":
        with pytest.raises(Denied, match="contract_"):
            broker.finalise("job", 1)
    else:
        size = len(by_name(broker.finalise("job", 1))["model.safetensors"])
        assert LIMITS.out_bytes // 2 < size <= LIMITS.out_bytes


def test_ten_gigabytes_of_metrics_end_at_the_cap(bench: Bench) -> None:
    """Written as far as the volume goes; what is there is within the permit's bytes, and gate 2 refuses it whole."""
    broker = bench.broker()
    events = bench.start(broker, misbehave="huge-metrics")
    assert until(events, "done", "exited").kind == "done"
    files = by_name(broker.finalise("job", 1))
    assert set(files) == {"metrics.json"} and 0 < len(files["metrics.json"]) <= LIMITS.out_bytes
    with pytest.raises(Denied, match="metrics_too_large"):
        metrics.parse(files["metrics.json"], (), 1)


def test_a_tasks_folder_exchanged_for_a_link_to_the_data_is_refused(bench: Bench) -> None:
    broker = bench.broker()
    events = bench.start(broker, misbehave="task-is-a-link")
    assert until(events, "done", "exited").task == 9
    with pytest.raises(Denied, match=RULES["not_a_folder"]):
        broker.finalise("job", 1)
    assert main_of(bench)["Running"] is False


def test_files_beside_the_tasks_folder_are_never_copied_and_gone_after(bench: Bench) -> None:
    broker = bench.broker()
    events = bench.start(broker, misbehave="beside-the-task")
    until(events, "done")
    assert set(by_name(broker.finalise("job", 1))) == {"metrics.json", "model.safetensors"}
    with pytest.raises(Denied, match=RULES["missing"]):
        broker.finalise("job", 99)


def test_done_without_a_byte_of_an_answer_is_an_empty_answer(bench: Bench) -> None:
    """The keeper copies nothing; gate 2 then misses the model and the metrics."""
    broker = bench.broker()
    until(bench.start(broker, misbehave="nothing"), "done")
    assert broker.finalise("job", 1) == ()


def test_folders_too_deep_to_name_are_cleared(bench: Bench) -> None:
    broker = bench.broker()
    depth = 3000  # a path of 4,096 bytes names 2,048 of them
    broker.prepare(bench.sign(bench.spec(resources=replace(LIMITS, out_files=depth + 10))))
    bench.give("job", 1, misbehave="deep-folders", depth=depth)
    events = broker.execute("job")
    assert until(events, "done", "exited").kind == "done"
    assert set(by_name(broker.finalise("job", 1))) == {"metrics.json", "model.safetensors"}
    bench.give("job", 2, misbehave="keep-files")
    assert until(events, "done", "exited").task == 2
    assert json.loads(by_name(broker.finalise("job", 2))["metrics.json"])["num-examples"] == 0


def test_what_changes_after_done_is_copied_once_or_refused_and_never_half(bench: Bench) -> None:
    """The file is rewritten without a pause; whatever instant the freeze hits, gate 2 reads one copy of it."""
    broker = bench.broker()
    events = bench.start(broker, misbehave="change-after-done")
    until(events, "done")
    files = by_name(broker.finalise("job", 1))
    assert set(files) == {"metrics.json", "model.safetensors"}
    assert files["metrics.json"] == b"" or json.loads(files["metrics.json"])["loss"] == 0.5


def test_nothing_is_kept_in_the_folder_from_one_task_to_the_next(bench: Bench) -> None:
    broker = bench.broker()
    events = bench.start(broker, misbehave="keep-files")
    for number in (1, 2, 3):
        if number > 1:
            bench.give("job", number, misbehave="keep-files")
        assert until(events, "done", "exited").task == number
        assert json.loads(by_name(broker.finalise("job", number))["metrics.json"])["num-examples"] == 0


def test_a_task_number_out_of_range_is_refused(bench: Bench) -> None:
    broker = bench.broker()
    until(bench.start(broker), "done")
    for task in (0, -1, 1_000_000):
        with pytest.raises(Denied, match="contract_"):
            broker.finalise("job", task)


def test_a_task_that_left_nothing_is_refused(bench: Bench) -> None:
    broker = bench.broker()
    until(bench.start(broker), "done")
    with pytest.raises(Denied, match=RULES["missing"]):
        broker.finalise("job", 7)

"""The main job: the reference job trains at two hospitals, in warm containers, and numbers alone come out."""

from __future__ import annotations

import pytest

from deploy.demo.permits import METRICS
from tests.end_to_end.house import House

pytestmark = pytest.mark.engine


def test_two_hospitals_train_one_model_and_nothing_but_the_permits_numbers_leave(house: House) -> None:
    permit = house.grant("lesion", house.torch, *house.hospitals)
    before = {node.site: node.last() for node in house.hospitals}
    config = {"epochs": 3, "learning-rate": 0.01, "batch-size": 8, "seed": 1}
    run = house.begin("trained", permit, *house.hospitals, rounds=2, **config)
    history = house.hub.ended(run, within_s=200)
    assert history["state"] == "done" and [entry["round"] for entry in history["rounds"]] == [0, 1, 2]
    assert len({entry["model_sha256"] for entry in history["rounds"]}) == 3, "it learned something each round"
    names = {task: {metric["name"] for metric in METRICS[task]} for task in METRICS}
    for entry in history["rounds"]:
        for node in house.hospitals:
            assert entry["evaluate"][node.site].keys() == names["evaluate"]
            assert entry["round"] == 0 or entry["train"][node.site].keys() == names["train"]
    for node in house.hospitals:
        ledger, after = node.ledger(run), before[node.site]
        assert (ledger["rounds_charged"], ledger["releases"]) == (2, 5)
        assert ledger["bytes_released"] == sum(entry["bytes"][node.site] for entry in history["rounds"])
        assert node.count(after, action="job_start") == 5, "five tasks"
        for kind in ("train", "evaluate"):
            node.recorded(after, about=f"sandbox/{kind}-", action="work_delete", permit="lesion@1")
            assert node.count(after, about=f"sandbox/{kind}-", action="work_delete") == 1, "in one container each"

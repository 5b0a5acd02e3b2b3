"""A run under a privacy budget, by everybody's own commands: noise leaves, two rounds, and then nothing more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from deploy.demo import permits
from tests.end_to_end.commands import attempt
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import PATIENTS, House
from tests.end_to_end.machine import give
from tests.sim.cohort import write_cohort

pytestmark = pytest.mark.engine

WEIGHT = permits.metric("num-examples", "count", 1, 1, 0)
# one round costs epsilon 1.01, two 1.48, three 1.85
BUDGET = {"epsilon": 1.6, "delta": 1e-5, "noise_multiplier": 8}


@pytest.fixture
def version(house: House) -> Iterator[str]:
    """A dataset of its own: a budget protects one for good."""
    node = house.hospitals[0]
    source = node.source / "private"
    write_cohort(source, node.site, PATIENTS, 9)
    for path in (source, *source.rglob("*")):
        give(path, node.uids["intake"])
    words = ("--clinical", "clinical.csv", "--column", "lesion=0:1", "--test-fraction", "0.4", "--json")
    yield node.run("ingest", source, "--project", permits.PROJECT, "--dataset", "private", *words).json()[
        "dataset_version"
    ]
    shutil.rmtree(source)


def spent(node: Hospital) -> list[tuple[object, ...]]:
    lines = [line for line in node.json("dataset", "budget") if line["dataset"] == "private"]
    return [(line["permit"], line["noised"], round(line["epsilon"], 2), line["budget"]) for line in lines]


def test_a_budget_is_signed_spent_and_over(house: House, version: str) -> None:
    node, job = house.hospitals[0], house.rogue
    covered = {"datasets": [{"site": node.site, "versions": [version]}], "privacy": BUDGET}
    draft = house.root / "loose.json"
    draft.write_text(json.dumps(house.draft("loose", job, **covered)))
    signing = attempt("permit", "sign", draft, "--key", house.committee.key, "--out", house.root / "loose.jws")
    signing.fault(3, "metric_unprotected", "auc of evaluate would leave exact", "minimum = maximum")

    private = house.grant("private", job, node, metrics={"train": [WEIGHT], "evaluate": [WEIGHT]}, **covered)
    history = house.hub.ended(house.begin("noised", private, node, rounds=2), within_s=120)
    assert (history["state"], history["completed_round"]) == ("done", 2), history
    assert all(entry["evaluate"][node.site] == {"num-examples": 1} for entry in history["rounds"])
    assert spent(node)[0] == ("private", 2, 1.48, 1.6)

    again = house.hub.ended(house.begin("again", private, node, rounds=2), within_s=120)
    assert again["state"] != "done" and "refused_budget" in json.dumps(again["rounds"]), again
    assert spent(node)[0] == ("private", 2, 1.48, 1.6)
    node.recorded(about="again/1/train", action="task_admit", verdict="refused", code="epsilon_exhausted")

    exact = house.grant("exact", job, node, datasets=covered["datasets"])
    refused = house.hub.ended(house.begin("exactly", exact, node), within_s=120)
    assert refused["state"] != "done", refused
    node.recorded(about="exactly/", action="task_admit", verdict="refused", code="dataset_protected")

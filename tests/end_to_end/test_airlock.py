"""A local analysis at one hospital, by its people's commands: no hub asks, persons decide, tables leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.containers.bench import image_id
from tests.end_to_end.commands import attempt, cloister
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import TABLES, House, Job
from tests.end_to_end.machine import eventually

pytestmark = pytest.mark.engine

NAME = "tables"
RULES = {
    "split": "train", "types": ["csv", "json"], "files": 3, "size_bytes": 10_000, "rows": 20, "columns": 6,
    "digits": 4, "threshold": 2, "dominance_n": 2, "dominance_k": 95.0, "p_percent": 1.0,
    "labels": [{"name": "half", "words": ["darker", "brighter"]}], "reviewers": 2,
}  # fmt: skip
CONFIG = [
    {"name": "misbehave", "type": "bool", "minimum": None, "maximum": None, "choices": []},
    {"name": "cut", "type": "str", "minimum": None, "maximum": None, "choices": ["lesion", "half"]},
]
# however few were held out, two halves are groups of some size
HALVES = {"cut": "half"}


@pytest.fixture(scope="module")
def permit(house: House) -> Path:
    """A permit for the reference analysis, accepted by the first hospital."""
    node, image = house.hospitals[0], image_id(TABLES)
    job = Job(image, house.root / "no-model", (), CONFIG)
    draft = house.draft(NAME, job, kinds=["analyse"], metrics={}, analysis=RULES, minimum_studies=3)
    signed = house.committee.sign_permit(draft)
    node.run("import", signed)
    node.run("permit", "accept", NAME, 1, "--key", node.steward)
    node.run("image", "approve", image, "--by", "it.admin", "--yes")
    return signed


def analyse(house: House, node: Hospital, permit: Path, run: str, **config: Any) -> list[dict[str, Any]]:
    """Order, bring in by file, start; the files in the airlock once it is over."""
    order = house.root / f"{run}.jws"
    cloister(
        "job", "order", "--permit", permit, "--run", run, "--image", image_id(TABLES),
        "--site", node.site, "--rounds", 1, "--strategy", "local", "--config", json.dumps(config),
        "--key", house.researcher.key, "--out", order,
    )  # fmt: skip
    node.run("import", order)
    node.run("analysis", "start", run)

    def over() -> bool:
        (job,) = node.jobs(run)
        assert job["state"] not in ("refused", "failed", "stopped"), job
        return bool(job["state"] == "held")

    eventually(over, within_s=90, what="the analysis")
    return [line for line in node.json("airlock", "list") if line["run"] == run]


def review(node: Hospital, file: str, who: str, *words: object) -> Any:
    return attempt(
        "node", "airlock", "review", file, *words, "--key", node.reviewer(who), "--config", node.config
    )  # fmt: skip


def test_tables_leave_after_two_persons_and_what_two_refuse_is_deleted(house: House, permit: Path) -> None:
    node, after = house.hospitals[0], house.hospitals[0].last()
    files = {line["name"]: line for line in analyse(house, node, permit, "in-halves", **HALVES)}
    assert {name: (line["state"], line["outcome"]) for name, line in files.items()} == {
        "groups.csv": ("checked", "pass"), "brightness.csv": ("checked", "pass"),
        "summary.json": ("checked", "review"),
    }, [node.json("airlock", "show", line["file"]) for line in files.values()]  # fmt: skip
    table, out = files["groups.csv"]["file"], house.root / "fetched"
    attempt("node", "airlock", "release", table, "--to", out, "--config", node.config).fault(3, "review_mismatch")
    assert review(node, table, "anna", "--approve").code == 0
    review(node, table, "anna", "--approve").fault(3)
    attempt("node", "airlock", "release", table, "--to", out, "--config", node.config).fault(3, "review_mismatch")
    assert review(node, table, "bert", "--approve").code == 0
    shown = node.json("airlock", "show", table)
    node.run("airlock", "release", table, "--to", out)
    assert sorted(path.name for path in out.iterdir()) == ["groups.csv", "groups.csv.disclosure.json"]
    text = (out / "groups.csv").read_text()
    assert text == shown["content"] and text.startswith("half,patients\ndarker,") and "\nbrighter," in text
    told = json.loads((out / "groups.csv.disclosure.json").read_text())
    assert [each["subject"] for each in told["reviews"]] == ["anna", "bert"] and told["record"]["outcome"] == "pass"
    assert "first" not in node.json("airlock", "show", files["brightness.csv"]["file"])["content"], "evidence stays"
    review(node, files["brightness.csv"]["file"], "bert", "--refuse").fault(2, "--reason")
    assert review(node, files["brightness.csv"]["file"], "bert", "--refuse", "--reason", "small_groups").code == 0
    states = {line["name"]: line["state"] for line in node.json("airlock", "list") if line["run"] == "in-halves"}
    assert states == {"groups.csv": "released", "brightness.csv": "refused", "summary.json": "checked"}
    assert node.json("airlock", "show", table)["content"] == ""
    about = f"{table}@{told['content_sha256']}"
    assert node.recorded(after, about=about, action="airlock_release", verdict="done")
    assert node.count(after, action="airlock_delete") == 2
    cloister("audit", "verify", node.audit, *node.verify_words)
    attempt("node", "analysis", "start", "in-halves", "--config", node.config).fault(3, "round_already_served")
    checked = json.loads(attempt("check", "--config", node.config, "--json").out)
    assert next(each for each in checked if each["what"] == "airlock")["detail"].startswith("1 files wait")


def test_rows_of_patients_and_pictures_do_not_even_reach_a_reviewer(house: House, permit: Path) -> None:
    node = house.hospitals[0]
    files = analyse(house, node, permit, "hostile", misbehave=True, **HALVES)
    assert {(line["name"], line["state"], line["code"]) for line in files} == {
        ("groups.csv", "refused", "table_not_permitted"), ("picture.csv", "refused", "file_not_permitted"),
    }  # fmt: skip
    for line in files:
        assert node.json("airlock", "show", line["file"])["content"] == ""
        review(node, line["file"], "anna", "--approve").fault(3, "review_mismatch")
    assert not [name for name in node.containers() if "analyse" in name]

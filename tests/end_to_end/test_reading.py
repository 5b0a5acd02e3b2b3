"""Every reading command, asked for JSON of a running house."""

from __future__ import annotations

from typing import Any

import pytest

from tests.end_to_end.commands import attempt, cloister
from tests.end_to_end.house import House, Permit

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    "words",
    ["dataset list", "permit list", "run list", "ledger", "job list", "image list"],
)
def test_a_list_of_the_nodes_is_json(house: House, rogue: Permit, words: str) -> None:
    node = house.hospitals[0]
    answer = node.json(*words.split())
    assert isinstance(answer, list)
    if words in ("dataset list", "permit list", "image list"):
        assert answer


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("dataset list", "dataset_version"), ("permit list", "permit"), ("run list", "run"), ("job list", "job"),
        ("image list", "image"),
    ],
)  # fmt: skip
def test_a_piped_list_holds_every_identifier_whole(house: House, rogue: Permit, words: str, name: str) -> None:
    node = house.hospitals[0]
    told = cloister("node", *words.split(), "--config", node.config).out
    assert "…" not in told
    lines = told.splitlines()
    assert all(any(item[name] in line for line in lines) for item in node.json(*words.split()))


def test_an_image_a_version_a_permit_and_a_site_are_named_by_their_beginnings(house: House, rogue: Permit) -> None:
    node, image = house.hospitals[0], rogue.job.image
    shown = cloister("node", "image", "show", image.removeprefix("sha256:")[:10], "--json", "--config", node.config)
    assert shown.json()["image"] == image and f"image {image}" in shown.err
    assert cloister("node", "permit", "show", "rogu", 1, "--config", node.config).json()["permit"] == "rogue"
    attempt("node", "permit", "accept", "rogu", 1, "--key", node.steward, "--config", node.config).fault(
        2, "too little"
    )
    version = node.dataset_version
    before = node.json("dataset", "list")
    attempt("node", "dataset", "withdraw", version[:12], "--config", node.config).fault(2, "too little")
    assert node.json("dataset", "list") == before
    attempt("node", "image", "withdraw", image[:11], "--by", "it.admin", "--config", node.config).fault(2, "too little")


def test_status_says_what_stands(house: House, rogue: Permit) -> None:
    status = house.hospitals[0].json("status")
    assert status["site"] == house.hospitals[0].site and status["hub"]["connected"] and not status["paused"]
    assert status["datasets"] >= 1 and status["permits"] >= 1 and status["audit_records"] > 0


def test_a_permit_is_shown_as_the_committee_signed_it(house: House, rogue: Permit) -> None:
    shown = cloister("node", "permit", "show", "rogue", 1, "--config", house.hospitals[0].config).json()
    assert shown == cloister("permit", "show", rogue.file, "--json").json()
    assert shown["permit"] == "rogue" and shown["images"] == [rogue.job.image]


def test_the_hub_lists_nodes_and_runs(house: House) -> None:
    hub = house.hub
    nodes: list[dict[str, Any]] = hub.run("node", "list", "--json").json()
    assert {each.site for each in house.hospitals} <= {each["site"] for each in nodes}, "others may be enrolled, too"
    assert isinstance(hub.run("run", "list", "--json").json(), list)


def test_check_finds_a_running_node_well(house: House, rogue: Permit) -> None:
    done = attempt("check", "--config", house.hospitals[0].config, "--json")
    assert done.code == 0, done
    assert {each["state"] for each in done.json()} <= {"ok", "warning", "unknown"}
    assert {
        "python",
        "packages",
        "configuration",
        "running configuration",
        "state folder",
        "engine",
        "core",
        "hub",
        "clock",
    } <= {each["what"] for each in done.json()}


def test_check_says_what_is_missing(house: House) -> None:
    bad = house.hospitals[0].folder / "absent.toml"
    text = house.hospitals[0].config.read_text()
    bad.write_text(text.replace(str(house.hospitals[0].state), str(house.root / "nothing")))
    done = attempt("check", "--config", bad)
    assert done.code == 5 and "state folder" in done.out and done.said("error: "), done


def test_the_canary_holds_and_is_on_record(house: House) -> None:
    node = house.hospitals[0]
    before = node.last()
    answer = node.json("canary")
    assert answer["failures"] == [] and len(answer["fingerprint"]) == 64
    node.recorded(before, about=f"sandbox/{answer['fingerprint']}", action="canary", verdict="done")


def test_a_job_of_nobodys_is_run_and_is_on_record(house: House) -> None:
    """By the real core and the real broker, each its own user: the whole way of a job, and nothing of it is left."""
    node = house.hospitals[0]
    before, jobs = node.last(), node.json("job", "list")
    answer = node.json("self-test")
    assert answer["failure"] == ""
    node.recorded(before, about=f"sandbox/{answer['fingerprint']}", action="self_test", verdict="done")
    assert node.json("job", "list") == jobs and not list((node.state / "work").glob("self-test-*"))


def test_a_user_of_no_role_is_told_so(house: House) -> None:
    node = house.hospitals[0]
    if node.uids["link"] is None:
        pytest.skip("all processes share one user")
    for words in (("status",), ("pause",), ("job", "list")):
        attempt("node", *words, "--config", node.config, uid=node.uids["link"]).fault(2, "may not")


@pytest.mark.parametrize(
    ("run", "said"),
    [("no-such-run", "there is no run no-such-run"), ("UPPER", "there is no run UPPER"), ("", "no run is named")],
)
def test_a_run_that_is_not_there_is_said(house: House, run: str, said: str) -> None:
    hub = house.hub
    attempt("hub", "run", "show", run, "--config", hub.config, uid=hub.uid).fault(2, said)

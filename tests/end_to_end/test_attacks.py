"""Attacks on the running house, each by the part that would make it. What was refused is on record; nothing left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mediator.types import RunOrder
from node.cli.documents import unverified
from node.host.keys import read_signing_key
from tests.end_to_end.commands import cloister
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import give

pytestmark = pytest.mark.engine


@contextmanager
def nothing_released(node: Hospital, jobs_more: int = 0) -> Iterator[int]:
    """The log's size before; afterwards no release is on record, the ledger stands, and no job more than said."""
    before, ledger, jobs = node.last(), node.json("ledger"), node.json("job", "list")
    yield before
    for action in ("release", "redeliver", "job_prepare", "ledger_charge"):
        assert node.count(before, action=action) == 0, action
    assert [line for line in node.json("ledger") if line in ledger] == ledger
    known = {job["job"] for job in jobs}
    later = node.json("job", "list")
    assert [job for job in later if job["job"] in known] == jobs
    assert [job["state"] for job in later if job["job"] not in known] == ["refused"] * jobs_more


def test_an_instruction_for_a_run_that_nobody_permitted_is_refused(house: House) -> None:
    node = house.hospitals[0]
    with nothing_released(node, jobs_more=1) as before:
        answer = house.hub.rogue("no-permit", node.site, house.rogue.model)
        assert answer == {"refused": "refused_permit"}
        node.recorded(before, about="no-such-run/", action="task_admit", verdict="refused", code="permit_missing")
        assert node.containers() == [] or node.count(before, action="job_start") == 0


def test_a_hub_that_signs_permit_and_order_itself_is_refused_at_every_step(house: House) -> None:
    hub, node = house.hub, house.hospitals[0]
    own = hub.state / "keys" / "instruction.key"
    own_public = hub.public_key("instruction")
    draft = house.draft("forged", house.rogue, persons=[_person(own_public)], issuer=_key_id(own_public))
    permit, order = hub.folder / "forged.jws", hub.folder / "forged-order.jws"
    asked = _write(hub.folder / "forged.json", hub.uid, json.dumps(draft))
    cloister("permit", "sign", asked, "--key", own, "--out", permit, uid=hub.uid)
    cloister(
        "job", "order", "--permit", permit, "--run", "forged", "--image", house.rogue.image, "--site", node.site,
        "--rounds", 1, "--config", '{"misbehave":"none"}', "--key", own, "--out", order, uid=hub.uid,
    )  # fmt: skip
    with nothing_released(node, jobs_more=1) as before:
        hub.run("permit", "publish", permit)
        hub.run("run", "submit", "--order", order, "--model", house.rogue.model)
        assert hub.ended("forged")["state"] == "stopped"
        for document in (permit, order):
            digest = hashlib.sha256(document.read_text().strip().encode()).hexdigest()
            node.recorded(before, about=f"document/{digest}", verdict="refused", code="untrusted_key")
        node.recorded(before, about="forged/", action="task_admit", verdict="refused", code="permit_missing")
    assert all(line["permit"] != "forged" for line in node.json("permit", "list"))


def test_a_run_order_signed_by_somebody_the_permit_does_not_name_is_refused(house: House, rogue: Permit) -> None:
    hub, node = house.hub, house.hospitals[0]
    stranger = house.root / "stranger.key"
    cloister("keys", "new", stranger)
    order = house.order("strangers", rogue, node, misbehave="none")
    # `cloister job order` refuses such a key; a stranger has other tools
    order.write_text(read_signing_key(stranger).sign(unverified(RunOrder, order.read_text().strip())))
    with nothing_released(node) as before:
        give(order, hub.uid)
        hub.rogue("publish", order)
        node.recorded(before, action="document_import", verdict="refused", code="untrusted_key")
    assert node.ledger("strangers") is None


def test_a_replayed_instruction_is_refused(house: House, rogue: Permit) -> None:
    node = house.hospitals[0]
    run = house.begin("replayed", rogue, node, misbehave="none")
    assert house.hub.ended(run)["state"] == "done"
    with nothing_released(node) as before:
        assert house.hub.rogue("replay", node.site, run) == {"refused": "refused_instruction"}
        node.recorded(before, about=f"{run}/1/train", verdict="refused", code="instruction_replayed")


# ---- what a container leaves behind


@dataclass(frozen=True)
class Trick:
    """A misbehaviour, the codes it may be refused with (the hub hears the same), and in which round it happens."""

    codes: tuple[str, ...]
    round: int = 1


TRICKS = {
    "extra-tensor": Trick(("tensor_not_permitted",)),
    "trailing-bytes": Trick(("trailing_bytes", "tensor_offsets")),
    "not-a-number": Trick(("not_finite",)),
    "extra-metric": Trick(("metric_not_permitted",)),
    "symlink": Trick(("contract_not_a_regular_file",)),
    "fail-in-words": Trick(("raised_key_error",)),
    "linger": Trick(("contract_unknown_name",), round=2),
}


@pytest.fixture(scope="module")
def tricked(house: House, rogue: Permit) -> dict[str, tuple[Hospital, dict[str, Any]]]:
    """All tricks at once, half of them at each hospital; the hub's history of each."""
    played = {}
    for number, (name, trick) in enumerate(TRICKS.items()):
        node = house.hospitals[number % 2]
        house.begin(f"trick-{name}", rogue, node, rounds=trick.round, misbehave=name)
        played[name] = node
    return {name: (node, house.hub.ended(f"trick-{name}")) for name, node in played.items()}


@pytest.mark.parametrize("name", TRICKS)
def test_an_output_that_no_permit_names_does_not_leave(
    tricked: dict[str, tuple[Hospital, dict[str, Any]]], name: str
) -> None:
    trick, (node, history), run = TRICKS[name], tricked[name], f"trick-{name}"
    task = f"{run}/{trick.round}/train"
    assert history["state"] == "stopped" and history["completed_round"] == trick.round - 1
    ended = [record for record in node.records() if record["object"].startswith(task) and record["code"]]
    assert len(ended) == 1 and ended[0]["code"] in trick.codes and ended[0]["verdict"] in ("refused", "failed"), ended
    assert [each["code"] for each in history["rounds"][-1]["refusals"]] == [ended[0]["code"]]
    assert node.count(about=f"{task}/", action="release", verdict="done") == 0
    assert node.count(about=f"{task}/", action="deliver") == 1, "the refusal, in one word"
    # evaluation of round 0, and training and evaluation of every round before
    assert node.ledger(run)["releases"] == 1 + 2 * (trick.round - 1)
    assert node.ledger(run)["bytes_released"] == sum(entry["bytes"][node.site] for entry in history["rounds"][:-1])
    job = next(job for job in node.jobs(run) if job["kind"] == "train" and job["round"] == trick.round)
    assert job["state"] in ("refused", "failed") and job["code"] in trick.codes
    # a container whose output was refused does not get another task
    deleted = node.recorded(ended[0]["sequence"] - 3, action="work_delete", permit="rogue@1")
    assert deleted["object"].startswith("sandbox/train-")


def _person(public_key: str) -> dict[str, str]:
    return {"subject": "the-hub", "organisation": "the hub", "public_key": public_key}


def _key_id(public_key: str) -> str:
    from mediator.signatures import VerifyKey

    return VerifyKey.from_text(public_key).key_id


def _write(path: Path, uid: int | None, text: str) -> Path:
    path.write_text(text)
    give(path, uid)
    return path

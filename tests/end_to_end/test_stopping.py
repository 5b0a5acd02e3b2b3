"""The hospital's switch, the committee's list and the calendar: each ends a container that runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mediator.signatures import open_signed
from mediator.types import Acceptance, DataPermit
from node.host.config import load_config
from node.host.keys import read_signing_key
from tests.end_to_end.commands import attempt
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import eventually

pytestmark = pytest.mark.engine
WITHIN_S = 5.0


@pytest.fixture
def node(house: House) -> Iterator[Hospital]:
    """The second hospital; running and unpaused again afterwards, as is the hub."""
    hospital = house.hospitals[1]
    yield hospital
    hospital.run("resume")
    if house.hub.process is None or house.hub.process.poll() is not None:
        house.hub.serve()


def seconds_between(earlier: dict, later: dict) -> float:
    return (datetime.fromisoformat(later["time"]) - datetime.fromisoformat(earlier["time"])).total_seconds()


def test_a_pause_ends_a_running_container_within_five_seconds_though_the_hub_is_dead(
    house: House, rogue: Permit, node: Hospital
) -> None:
    run, before = house.begin("paused", rogue, node, misbehave="slow"), node.last()
    started = node.recorded(before, about=f"{run}/1/train", action="job_start")
    house.hub.kill()
    node.run("pause")
    assert node.containers() == [] and node.work_areas() == []
    paused = node.recorded(before, action="pause")
    deleted = node.recorded(started["sequence"], action="work_delete")
    assert seconds_between(paused, deleted) < WITHIN_S
    node.recorded(before, about=f"{run}/1/train", action="job_end", verdict="refused", code="hospital_paused")
    assert node.ledger(run)["releases"] == 1, "the untrained model's evaluation, before the pause"

    house.hub.serve()
    waiting = eventually(
        lambda: next((h for h in [house.hub.show(run)] if h["state"] == "waiting" and "paused" in h["detail"]), None),
        what="the hub's hearing of the pause",
    )
    assert {each["code"] for entry in waiting["rounds"] for each in entry["refusals"]} == {"paused"}
    assert node.containers() == []
    node.run("resume")
    assert house.hub.ended(run)["state"] == "done"
    ledger = node.ledger(run)
    assert (ledger["rounds_charged"], ledger["releases"], ledger["state"]) == (1, 3, "complete")
    assert node.count(about=f"{run}/", action="ledger_charge") == 3


def test_a_permit_revoked_by_the_committee_ends_its_containers_and_every_later_round(
    house: House, node: Hospital
) -> None:
    permit, before = house.grant("revoked", house.rogue, node), node.last()
    run = house.begin("recalled", permit, node, rounds=3, misbehave="slow")
    node.recorded(before, about=f"{run}/1/train", action="job_start")
    house.publish_revocations("revoked")
    node.recorded(before, about=f"run/{run}", action="permit_end", verdict="refused", code="permit_revoked")
    node.recorded(before, action="work_delete", permit="revoked@1")
    eventually(lambda: not node.containers() and not node.work_areas(), what="the end of container and work area")
    assert house.hub.ended(run)["state"] == "stopped"
    node.recorded(before, about=f"{run}/1/train", action="job_end", verdict="refused", code="permit_revoked")
    ledger, last = node.ledger(run), node.last()
    assert ledger["releases"] == 1

    # the hub asks nobody for what nobody would serve, neither anew nor again
    hub, order = house.hub, house.order("recalled-again", permit, node, misbehave="none")
    words = ("hub", "run", "submit", "--order", order, "--model", permit.job.model, "--config", hub.config)
    attempt(*words, uid=hub.uid).fault(3, "permit_revoked")
    attempt("hub", "run", "resume", run, "--config", hub.config, uid=hub.uid).fault(3, "permit_revoked")
    assert node.count(last, action="job_prepare") == 0 == node.count(last, action="release", verdict="done")
    assert node.ledger(run) == ledger
    assert next(line for line in node.json("permit", "list") if line["permit"] == "revoked")["revoked"] is True


def test_an_acceptance_that_expires_ends_a_container_in_the_middle_of_its_task(house: House, node: Hospital) -> None:
    permit = house.grant("brief", house.rogue)
    order = house.order("brief", permit, node, misbehave="over-time")
    eventually(lambda: any(line["permit"] == "brief" for line in node.json("permit", "list")), what="the permit")
    expires = accept_for(house, node, permit, seconds=30)
    before = node.last()
    house.submit(order, permit.job)
    started = node.recorded(before, about="brief/1/train", action="job_start")
    assert datetime.fromisoformat(started["time"]) < expires
    ended = node.recorded(
        before, within_s=60, about="run/brief", action="permit_end", verdict="refused", code="acceptance_expired"
    )
    assert 0 <= (datetime.fromisoformat(ended["time"]) - expires).total_seconds() < WITHIN_S
    node.recorded(before, action="work_delete", permit="brief@1")
    assert house.hub.ended("brief")["state"] == "stopped"
    eventually(lambda: not node.containers() and not node.work_areas(), what="the end of container and work area")
    assert node.ledger("brief")["releases"] == 1


def accept_for(house: House, node: Hospital, permit: Permit, *, seconds: int) -> datetime:
    """A steward's acceptance that expires soon, brought in as a file; when it does."""
    ring = load_config(node.config).trust.ring("committee")
    signed = open_signed(DataPermit, permit.file.read_text().strip(), ring)
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    acceptance = Acceptance(
        site=node.site, permit=permit.name, permit_version=1, permit_sha256=signed.sha256, expires=expires,
        maximum_rounds=None, byte_budget=None, versions=None,
    )  # fmt: skip
    file = house.root / "acceptance.jws"
    file.write_text(read_signing_key(node.steward).sign(acceptance))
    node.run("import", file)
    return expires

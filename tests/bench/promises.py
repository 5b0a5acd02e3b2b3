"""What must be true of a hospital whatever was done to its processes, its disk, its clock and its connection."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.end_to_end.commands import attempt
from tests.sim.search import MIN_TOKEN, search

if TYPE_CHECKING:
    from tests.bench.disturbed_hospital import Disturbed

ENDS = {"delivered", "held", "refused", "failed", "stopped"}
IMPORT_ENDS = {"published", "failed", "stopped"}


def the_log_verifies(hospital: Disturbed) -> Iterator[str]:
    hospital.node.run("audit", "checkpoint")
    words = (hospital.node.audit, *hospital.node.verify_words, "--json")
    done = attempt("audit", "verify", *words)
    if done.code != 0 or not done.json()["witnessed"]:
        yield f"the audit log does not verify: {done.out[:500]}{done.err[:500]}"


def nothing_left_twice(hospital: Disturbed) -> Iterator[str]:
    """One release and one charge for each round and task of a run, however often it was asked."""
    records = hospital.node.records()
    for action, verdict in (("release", "done"), ("ledger_charge", "")):
        each = Counter(
            "/".join(str(record["object"]).split("@")[0].split("/")[:3])
            for record in records
            if record["action"] == action and record["verdict"] in (verdict or record["verdict"])
        )
        yield from (f"{count} × {action} of {what}" for what, count in each.items() if count > 1)


def no_study_is_lost(hospital: Disturbed) -> Iterator[str]:
    """A dataset that was published has every study that was given for it, each taken over once."""
    taken = [str(each["object"]) for each in hospital.node.records() if each["action"] == "study_take"]
    for line in hospital.json("dataset", "imports"):
        wanted = hospital.studies.get(line["dataset"])
        if wanted is None or line["state"] != "published":
            continue
        found = sum(each.startswith(f"ingest/{line['order']}/") for each in taken)
        if not wanted == found == line["studies_done"]:
            yield f"{line['dataset']}: {wanted} studies given, {found} taken over, {line['studies_done']} published"


def the_ledger_is_what_the_hub_received(hospital: Disturbed) -> Iterator[str]:
    site = hospital.node.site
    ledger = {line["run"]: line["bytes_released"] for line in hospital.json("ledger")}
    for run, state in hospital.runs.items():
        received = sum(entry.get("bytes", {}).get(site, 0) for entry in hospital.house.hub.show(run)["rounds"])
        # a run that was stopped may have been so between a release and its way to the hub
        if received > ledger.get(run, 0) or (state == "done" and received != ledger.get(run)):
            yield f"{run} ({state}): {ledger.get(run)} bytes on the ledger, {received} at the hub"


def nobody_is_named(hospital: Disturbed) -> Iterator[str]:
    """No name, number or UID of an original, outside the folder it came from: node, hub, logs and orders."""
    tokens = set[str]()
    for table in hospital.node.source.rglob("clinical.csv"):
        with table.open() as file:
            for row in csv.DictReader(file):
                name = row["remark"].removeprefix("seen with ")
                tokens |= {row["PatientID"], row["StudyInstanceUID"], name, name.replace(" ", "^")}
    assert len(tokens) >= 30, "there is somebody to find"
    node = hospital.node
    places = [node.state, node.log, node.folder / "orders.log", hospital.house.hub.state, hospital.house.hub.log]
    for hit in search(
        [place for place in places if place.exists()], (each for each in tokens if len(each) >= MIN_TOKEN)
    ):
        yield f"{hit.token!r} in {hit.path} {hit.name}"


def every_end_is_known(hospital: Disturbed) -> Iterator[str]:
    for job in hospital.json("job", "list"):
        if job["state"] not in ENDS:
            yield f"job {job['job']} is {job['state']}"
    yield from (f"import {name} is {state}" for name, state in hospital.imports.items() if state not in IMPORT_ENDS)
    yield from (f"run {name} is {state}" for name, state in hospital.runs.items() if state not in ("done", "stopped"))


def nothing_lies_about(hospital: Disturbed) -> Iterator[str]:
    node = hospital.node
    yield from (f"container {name}" for name in node.containers())
    yield from (f"work area {name}" for name in node.work_areas())
    for folder in ("intake/quarantine", "handover"):
        yield from (f"{folder}/{path.name}" for path in _inside(node.state / folder))


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


PROMISES: tuple[Callable[[Disturbed], Iterator[str]], ...] = (
    the_log_verifies, nothing_left_twice, no_study_is_lost, the_ledger_is_what_the_hub_received, nobody_is_named,
    every_end_is_known, nothing_lies_about,
)  # fmt: skip


def broken_promises(hospital: Disturbed) -> list[str]:
    """Every one that does not hold, in words."""
    return [words for promise in PROMISES for words in promise(hospital)]

"""The trained model in the coordinator's hands: after a real run, by the command, with what says where it came from."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sqlalchemy import select

from federation.hub.tables import EventRow, RunRow
from mediator import tensors
from mediator.errors import Code, Denied, HubCode, NotNow, UsageFault
from mediator.permit import open_permit
from mediator.signatures import KeyRing, open_signed
from mediator.types import RevocationList, RunOrder
from tests.end_to_end.commands import Done, attempt
from tests.federation.ground import COMMITTEE, RESEARCHER, SPECS, Town, found, model, order, permit
from tests.federation.test_desk import NOW
from tests.sim.core import FakeCore

RUN = "exported"
FILES = {
    "model.safetensors", "history.json", "history.csv", "lineage.json", "order.jws", "permit.jws", "SHA256SUMS"
}  # fmt: skip


@dataclass
class Trained:
    """A hub with a run of three rounds behind it, one of whose sites refused the second."""

    town: Town
    cores: list[FakeCore]
    history: dict[str, Any]

    def export(self, *words: object, run: str = RUN) -> Done:
        return attempt("hub", "run", "export", run, *words, "--config", self.town.folder / "hub.toml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    town = found(tmp_path_factory.mktemp("town"), patience_s=20.0)
    town.start()
    cores = [
        town.core("aachen", value=1.0, examples=10),
        town.core("bergen", value=2.0, examples=20),
        town.core("coimbra", value=4.0, examples=10),
    ]
    cores[2].answer = lambda core, asked, context: refused(core, asked, context)

    async def run() -> dict[str, Any]:
        async with town.links(*cores):
            town.submit(RUN, minimum_sites=2)
            return await town.settled(RUN)

    history = asyncio.run(run())
    assert history["state"] == "done", history
    yield Trained(town, cores, history)
    town.stop()


def refused(core: FakeCore, asked: Any, context: bytes) -> Any:
    from federation.client.ports import OutgoingReply

    if (asked.round, asked.task.value) == (2, "train"):
        return OutgoingReply(asked.id, context, None, HubCode.REFUSED_OUTPUT, None)
    return None


def records(town: Town, run: str = RUN) -> list[tuple[str, str, str]]:
    with town.hub.database.read() as session:
        query = select(EventRow).where(EventRow.action == "run_export").order_by(EventRow.sequence)
        return [
            (row.object, row.verdict, row.code) for row in session.scalars(query) if row.object.startswith(f"{run}/")
        ]


def test_a_finished_runs_model_history_and_lineage_are_written(trained: Trained, tmp_path: Path) -> None:
    town, to, before = trained.town, tmp_path / "out", len(records(trained.town))
    done = trained.export("--to", to, "--json")
    assert done.code == 0, done
    answer = done.json()
    assert {path.name for path in to.iterdir()} == FILES == set(answer["files"])
    assert all(
        hashlib.sha256((to / name).read_bytes()).hexdigest() == digest for name, digest in answer["files"].items()
    )
    assert (
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=to, check=False).returncode
        == 0
    )
    # the model is the last round's, and any safetensors reader takes it
    weights = load_file(to / "model.safetensors")
    assert set(weights) == {spec.name for spec in SPECS}
    # round 2 was without coimbra: the mean of 1 and 2 weighted 1:2, and 1, 2, 4 weighted 1:2:1 in the two others
    assert np.allclose(weights["layer.weight"], 2 * 2.25 + 5 / 3) and weights["layer.bias"].shape == ()
    assert (answer["round"], answer["model_sha256"]) == (3, trained.history["model_sha256"])

    history = json.loads((to / "history.json").read_text())
    assert [entry["round"] for entry in history["rounds"]] == [0, 1, 2, 3]
    assert history["rounds"] == trained.history["rounds"]
    assert [each["site"] for each in history["rounds"][2]["refusals"]] == ["coimbra"]

    lineage = json.loads((to / "lineage.json").read_text())
    assert lineage["model"] == {
        "file": "model.safetensors", "round": 3, "sha256": answer["model_sha256"],
        "schema_sha256": order(RUN).schema_sha256,
    }  # fmt: skip
    assert lineage["release"] == {
        "needed": False, "code": "release_not_named", "because": "the permit does not speak of release"
    }  # fmt: skip
    assert lineage["order"]["image"] == order(RUN).image and lineage["order"]["config"] == {"rate": 0.1}
    assert lineage["order"]["strategy"] == "fedavg" and set(lineage["datasets"]) == {"aachen", "bergen", "coimbra"}
    assert lineage["exported"]["software"]["flwr"] and len(lineage["attempts"]) >= 1
    # what it rests on can be verified by whoever has the keys
    granted = open_permit((to / "permit.jws").read_text().strip(), KeyRing([COMMITTEE.verify_key]))
    ordered = open_signed(RunOrder, (to / "order.jws").read_text().strip(), KeyRing([RESEARCHER.verify_key]))
    assert (granted.sha256, ordered.sha256) == (lineage["permit"]["sha256"], lineage["order"]["sha256"])
    # and the hub has it on record, before and after
    about = f"{RUN}/3@{answer['model_sha256']}"
    assert records(town)[before:] == [(about, "allowed", "release_not_named"), (about, "done", "release_not_named")]
    shown = town.hub.run_history(RUN)["exports"][-1]
    assert (shown["object"], shown["verdict"], shown["code"]) == (about, "done", "release_not_named")


def test_every_update_is_named_as_the_sites_own_log_names_its_release(trained: Trained, tmp_path: Path) -> None:
    assert trained.export("--to", tmp_path / "out").code == 0
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    named = {
        (update["site"], update["audit_object"])
        for entry in lineage["rounds"]
        for update in entry["updates"]
    }  # fmt: skip
    # a node records `instruction@root` of each release (node.core.tasks.release_output)
    released = {(core.site, f"{each.instruction}@{each.root}") for core in trained.cores for each in core.released}
    assert named <= released and len(named) == 4 * 3 + 3 * 3 - 1
    tasks = [(entry["round"], entry["task"]) for entry in lineage["rounds"]]
    assert tasks == [(0, "evaluate"), *((n, task) for n in (1, 2, 3) for task in ("train", "evaluate"))]
    second = next(entry for entry in lineage["rounds"] if (entry["round"], entry["task"]) == (2, "train"))
    assert {update["site"] for update in second["updates"]} == {"aachen", "bergen"}
    assert {update["examples"] for update in second["updates"]} == {10, 20}


def test_the_table_holds_every_answer_and_every_mean(trained: Trained, tmp_path: Path) -> None:
    assert trained.export("--to", tmp_path / "out").code == 0
    with (tmp_path / "out" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    means = [row for row in rows if row["outcome"] == "mean"]
    assert [(row["round"], row["task"], row["site"]) for row in means] == [
        ("0", "evaluate", ""), *((str(n), task, "") for n in (1, 2, 3) for task in ("train", "evaluate"))
    ]  # fmt: skip
    no = [row for row in rows if row["outcome"] == "refused"]
    assert [(row["round"], row["task"], row["site"], row["code"]) for row in no] == [
        ("2", "train", "coimbra", "refused_output")
    ]
    assert no[0]["metric.loss"] == ""
    last = trained.history["rounds"][3]
    for row in rows:
        if (row["round"], row["task"], row["outcome"]) == ("3", "evaluate", "used"):
            assert float(row["metric.loss"]) == last["evaluate"][row["site"]]["loss"]
            assert float(row["metric.num-examples"]) == last["evaluate"][row["site"]]["num-examples"]
    assert float(means[-1]["metric.loss"]) == last["mean"]["loss"]


def test_an_earlier_round_can_be_had_and_carries_its_own_history(trained: Trained, tmp_path: Path) -> None:
    for number in (0, 1, 2):
        to = tmp_path / str(number)
        assert trained.export("--to", to, "--round", number).code == 0
        content = (to / "model.safetensors").read_bytes()
        assert content == trained.town.hub.checkpoints.model(RUN, number)
        history = json.loads((to / "history.json").read_text())
        assert [entry["round"] for entry in history["rounds"]] == list(range(number + 1))
        assert tensors.parse(content, SPECS)
    trained.export("--to", tmp_path / "4", "--round", 4).fault(2, "3 rounds")
    assert not (tmp_path / "4").exists()


def test_a_folder_that_holds_anything_is_left_as_it_is(trained: Trained, tmp_path: Path) -> None:
    before = records(trained.town)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    trained.export("--to", tmp_path / "full").fault(2, "not an empty folder")
    (tmp_path / "file").write_text("kept")
    trained.export("--to", tmp_path / "file").fault(2, "not an empty folder")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"] and records(trained.town) == before
    (tmp_path / "empty").mkdir()
    assert trained.export("--to", tmp_path / "empty").code == 0
    assert {path.name for path in (tmp_path / "empty").iterdir()} == FILES
    trained.export("--to", tmp_path / "empty").fault(2, "not an empty folder")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_is_full_leaves_nothing_half_written_and_no_record_of_an_export_done(
    trained: Trained, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(small)], check=True)
    try:
        before = records(trained.town)
        trained.export("--to", small / "out").fault(5, "disk is full")
        assert list(small.iterdir()) == []
        assert [verdict for _, verdict, _ in records(trained.town)[len(before) :]] == ["allowed"]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_checkpoint_that_was_changed_is_not_exported(trained: Trained, tmp_path: Path) -> None:
    file = trained.town.config.state_dir / "checkpoints" / RUN / "round-0001.safetensors"
    kept = file.read_bytes()
    try:
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        trained.export("--to", tmp_path / "out", "--round", 1).fault(4, "not what was written")
        assert not (tmp_path / "out").exists()
    finally:
        file.write_bytes(kept)


def test_a_run_that_is_not_there_is_said(trained: Trained, tmp_path: Path) -> None:
    trained.export("--to", tmp_path / "out", run="nobody").fault(2, "there is no run nobody")


# --- without a hub running ------------------------------------------------------------------------------------


@pytest.fixture
def town(tmp_path: Path) -> Town:
    (tmp_path / "town").mkdir()
    return found(tmp_path / "town")


@pytest.mark.parametrize(
    ("state", "completed", "round_", "error"),
    [
        ("running", 1, None, NotNow), ("waiting", 1, None, NotNow), ("submitted", -1, None, NotNow),
        ("running", 1, 2, NotNow), ("running", -1, 0, NotNow), ("stopped", -1, None, UsageFault),
        ("stopped", 0, None, UsageFault), ("done", 3, 4, UsageFault),
    ],
)  # fmt: skip
def test_what_is_not_finished_is_not_exported(
    town: Town, state: str, completed: int, round_: int | None, error: type[Exception]
) -> None:
    town.submit("young")
    with town.hub.database.write() as session:
        row = session.get_one(RunRow, "young")
        row.state, row.completed_round = state, completed
    with pytest.raises(error):
        town.hub.export_run("young", round_)
    assert records(town, "young") == []


def test_a_revoked_permits_model_is_not_handed_out_and_the_refusal_is_on_record(trained: Trained) -> None:
    """Last of this hub's: a list cannot be taken back."""
    town = trained.town
    town.hub.submit_revocations(COMMITTEE.sign(RevocationList(2, NOW, ("p1",))))
    with pytest.raises(Denied) as caught:
        town.hub.export_run(RUN)
    assert caught.value.reasons[0].code is Code.PERMIT_REVOKED
    assert records(town)[-1][1:] == ("refused", "permit_revoked")
    with town.hub.database.write() as session:
        session.get_one(RunRow, RUN).state = "stopped"
    with pytest.raises(Denied) as caught:
        town.hub.resume_run(RUN)
    assert caught.value.reasons[0].code is Code.PERMIT_REVOKED


# --- what is refused before anybody is asked -------------------------------------------------------------------


def granted(town: Town, **changes: Any) -> None:
    town.hub.submit_permit(COMMITTEE.sign(permit(**changes)))


def revoke(town: Town) -> None:
    town.hub.submit_revocations(COMMITTEE.sign(RevocationList(2, NOW, ("dead",))))


DAY = timedelta(days=1)
DEAD: dict[str, tuple[dict[str, Any], Any, Code]] = {
    "expired": ({"not_before": NOW - 2 * DAY, "expires": NOW - DAY}, None, Code.PERMIT_EXPIRED),
    "not-yet-valid": ({"not_before": NOW + DAY, "expires": NOW + 2 * DAY}, None, Code.PERMIT_NOT_YET_VALID),
    "revoked": ({}, revoke, Code.PERMIT_REVOKED),
    "superseded": (
        {}, lambda town: granted(town, permit="dead", permit_version=2, supersedes=1), Code.PERMIT_SUPERSEDED
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", DEAD)
def test_a_run_under_a_dead_permit_is_refused_at_once(town: Town, tmp_path: Path, why: str) -> None:
    changes, then, code = DEAD[why]
    granted(town, permit="dead", **changes)
    if then is not None:
        then(town)
    (tmp_path / "order.jws").write_text(RESEARCHER.sign(order("late", permit="dead")))
    (tmp_path / "model").write_bytes(tensors.encode(model()))
    words = ("hub", "run", "submit", "--order", tmp_path / "order.jws", "--model", tmp_path / "model")
    done = attempt(*words, "--config", town.folder / "hub.toml")
    done.fault(3, code.value)
    assert town.hub.list_runs() == [] and not (town.config.state_dir / "checkpoints" / "late").exists()


def test_a_permit_superseded_only_later_is_still_good_today(town: Town) -> None:
    granted(town, permit="dead")
    granted(town, permit="dead", permit_version=2, supersedes=1, not_before=NOW + DAY, expires=NOW + 2 * DAY)
    town.submit("today", permit="dead")
    assert [row["run"] for row in town.hub.list_runs()] == ["today"]

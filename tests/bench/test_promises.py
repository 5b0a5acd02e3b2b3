"""Each promise that is looked at after chaos, on a hospital in which it is broken, and on one in which it is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench import promises

ROW = "PatientID,StudyInstanceUID,lesion,age,remark\n"


def record(action: str, about: str, verdict: str = "done") -> dict[str, str]:
    return {"action": action, "object": about, "verdict": verdict}


def hospital(tmp_path: Path, **changes: Any) -> Any:
    """One run that is done, one import, twenty patients in the source folder and nothing of them anywhere else."""
    folders = {name: tmp_path / name for name in ("source", "state", "hub", "audit")}
    for folder in (*folders.values(), folders["state"] / "handover", folders["state"] / "intake" / "quarantine"):
        folder.mkdir(parents=True)
    rows = [
        f"PID-{number:06d},2.25.12345678{number:03d},0,60,seen with Brulin Kato{number:03d}\n" for number in range(20)
    ]
    (folders["source"] / "clinical.csv").write_text(ROW + "".join(rows))
    (tmp_path / "node.log").write_text("ready\n")
    told = {
        "records": [record("ledger_charge", "r/1/train"), record("release", "r/1/train/1@aa"),
                    record("release", "r/1/evaluate/1@bb"), record("release", "r/1/train/2@cc", "refused"),
                    record("study_take", "ingest/i/1"), record("study_take", "ingest/i/2")],
        "ledger": [{"run": "r", "bytes_released": 70}], "job list": [{"job": "j", "state": "delivered"}],
        "dataset imports": [{"order": "i", "dataset": "more", "state": "published", "studies_done": 2}],
        "studies": {"more": 2}, "received": 70, "containers": [], "runs": {"r": "done"}, "imports": {"i": "published"},
    } | changes  # fmt: skip
    node = SimpleNamespace(
        site="s", state=folders["state"], source=folders["source"], folder=tmp_path, log=tmp_path / "node.log",
        audit=folders["audit"], verify_words=(), records=lambda: told["records"], run=lambda *_: None,
        containers=lambda: told["containers"], work_areas=list,
    )  # fmt: skip
    hub = SimpleNamespace(
        state=folders["hub"], log=tmp_path / "hub.log", show=lambda _: {"rounds": [{"bytes": {"s": told["received"]}}]}
    )
    return SimpleNamespace(
        node=node, house=SimpleNamespace(hub=hub), runs=told["runs"], imports=told["imports"],
        studies=told["studies"],
        json=lambda *words: told[" ".join(words)],
    )  # fmt: skip


def broken(about: Any) -> list[str]:
    """All but the log, for which there is none here."""
    return [words for promise in promises.PROMISES[1:] for words in promise(about)]


def test_nothing_is_said_of_a_hospital_that_keeps_them(tmp_path: Path) -> None:
    assert broken(hospital(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"records": [record("release", "r/1/train/1@aa"), record("release", "r/1/train/2@bb")]},
            "2 × release of r/1/train",
        ),
        ({"records": [record("ledger_charge", "r/1/train")] * 2}, "2 × ledger_charge of r/1/train"),
        ({"received": 71}, "70 bytes on the ledger, 71 at the hub"),
        ({"received": 69}, "70 bytes on the ledger, 69 at the hub"),
        ({"received": 71, "runs": {"r": "stopped"}}, "r (stopped): 70 bytes on the ledger, 71 at the hub"),
        ({"job list": [{"job": "j", "state": "running"}]}, "job j is running"),
        ({"imports": {"i": "publishing"}}, "import i is publishing"),
        ({"runs": {"r": "running"}}, "run r is running"),
        ({"containers": ["box"]}, "container box"),
        ({"studies": {"more": 3}}, "more: 3 studies given, 2 taken over, 2 published"),
        ({"records": [record("study_take", "ingest/i/1")] * 3}, "more: 2 studies given, 3 taken over, 2 published"),
    ],
)  # fmt: skip
def test_what_is_broken_is_said(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert [words for words in broken(hospital(tmp_path, **changes)) if says in words]


@pytest.mark.parametrize("place", ["state/core.log", "hub/hub.db", "node.log", "orders.log"])
@pytest.mark.parametrize("of", ["PID-000007", "2.25.12345678007", "Brulin Kato007"])
def test_a_patient_is_found_wherever_he_is_named(tmp_path: Path, place: str, of: str) -> None:
    about = hospital(tmp_path)
    (tmp_path / place).write_text(f"said {of} once")
    (found,) = promises.nobody_is_named(about)
    assert of in found and place in found


def test_what_lies_about_is_named(tmp_path: Path) -> None:
    about = hospital(tmp_path)
    (tmp_path / "state" / "handover" / "left").mkdir()
    assert list(promises.nothing_lies_about(about)) == ["handover/left"]


def test_a_log_that_does_not_verify_is_said(tmp_path: Path) -> None:
    (said,) = promises.the_log_verifies(hospital(tmp_path))
    assert said.startswith("the audit log does not verify")

"""Privacy budgets at core's real sockets, by the staff's own commands: signed for, refused, read."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from mediator.errors import Code, Denied
from mediator.permit import open_acceptance
from node.cli import main
from node.core.core import now
from node.core.store import models
from node.core.tasks.privacy import composed
from tests.mediator import samples
from tests.mediator.samples import DAY, PRIVATE
from tests.node.core.process.test_process import Served


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "steward.key"
    file.write_text(hashlib.sha256(b"cloister test key steward").hexdigest() + "\n")
    file.chmod(0o600)
    return file


def cloister(served: Served, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    config = served.config.state_dir.parent / "node.toml"
    monkeypatch.setattr(sys, "argv", ["cloister", *words, "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_steward_says_unprotected_by_name_and_no_other_way(
    served: Served, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = now().replace(microsecond=0)
    granted = samples.permit(not_before=start - DAY, expires=start + DAY)
    served.core.documents.receive(samples.COMMITTEE.sign(granted))
    for words, unprotected in (((), False), (("--unprotected",), True)):
        accept = ("node", "permit", "accept", granted.permit, "2", "--key", str(key), *words)
        assert cloister(served, monkeypatch, *accept) == 0
        with served.core.core.store.read() as snapshot:
            row = snapshot.acceptance(granted.permit, 2)
        assert row is not None
        assert open_acceptance(row.text, samples.STEWARD_RING).document.unprotected is unprotected


def test_a_permit_that_cannot_be_protected_is_kept_by_no_node(served: Served) -> None:
    loose = samples.permit(privacy=samples.PRIVACY)
    with pytest.raises(Denied) as caught:
        served.core.documents.receive(samples.COMMITTEE.sign(loose))
    assert {reason.code for reason in caught.value.reasons} == {Code.METRIC_UNPROTECTED}
    with served.core.core.store.read() as snapshot:
        assert snapshot.permits() == () and '"code":"metric_unprotected"' in snapshot.audit_lines(0, 100)[-1]


def test_what_is_spent_can_be_read_on_the_screen_and_by_a_program(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    granted = samples.permit(permit="private", permit_version=1, supersedes=None, **PRIVATE)
    served.core.documents.receive(samples.COMMITTEE.sign(granted))
    charged = {"run": "run-1", "task": "train", "permit_version": 1, "size_bytes": 1, "epsilon": 0.0, "time": now()}
    with served.core.core.store.transaction(now()) as tx:
        for number, (permit, noise) in enumerate((("private", 8.0), ("private", 8.0), ("gone", 4.0), ("gone", None))):
            of = {"dataset": "images", "noise_multiplier": noise, "permit": permit, "round": number}
            tx._session.add(models.LedgerEntryTable(**charged, **of))
    assert cloister(served, monkeypatch, "node", "dataset", "budget", "--json") == 0
    lines = json.loads(capsys.readouterr().out)
    shown = [(each["permit"], each["noised"], each["without_noise"], each["budget"]) for each in lines]
    assert shown == [("gone", 1, 1, None), ("private", 2, 0, 8.0), ("", 3, 1, 10.0)]
    epsilon = [composed({4.0: 1}, 1e-6), composed({8.0: 2}, 1e-5), composed({4.0: 1, 8.0: 2}, 1e-6)]
    assert [each["epsilon"] for each in lines] == epsilon and max(epsilon) == epsilon[2]
    assert [each["delta"] for each in lines] == [1e-6, 1e-5, 1e-6]
    assert cloister(served, monkeypatch, "node", "dataset", "budget") == 0
    table = capsys.readouterr().out
    assert "all permits" in table and "1.48" in table and "no budget" in table

"""What the documents show of the demo is what its report code makes of the kept result; made again, nothing changes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploy.demo import chart, record
from deploy.demo.page import names_of
from deploy.demo.report import ALONE_AT_MOST, REFUSALS, TOGETHER_AT_LEAST
from deploy.demo.workplace import write_json
from tests.demo.test_report import good


def result() -> dict:
    return json.loads(record.RESULT.read_text(encoding="utf-8"))


def test_readmes_transcript_is_what_the_demo_says_of_the_kept_result() -> None:
    readme = record.README.read_text(encoding="utf-8")
    assert record.transcript(result()) in readme
    assert record.with_transcript(readme, result()) == readme


def test_the_pictures_are_the_kept_results(tmp_path: Path) -> None:
    plain = result()
    assert record.SVG.read_text(encoding="utf-8") == chart.svg(plain["tested"], names_of(plain))
    again = chart.write_png(tmp_path / "again.png", plain["tested"], names_of(plain))
    assert record.PNG.read_bytes() == again.read_bytes()


def test_the_kept_result_is_of_a_demo_that_kept_its_promises_and_names_no_machine() -> None:
    plain = result()
    assert plain["failures"] == [] and all(plain["refusals"].values())
    assert plain["auc_together"] >= TOGETHER_AT_LEAST
    assert all(node["auc_local_only"] <= ALONE_AT_MOST for node in plain["nodes"])
    assert not re.search(r'"/|127\.0\.0\.1', record.RESULT.read_text(encoding="utf-8"))


def test_readme_tells_every_attack_in_a_line() -> None:
    readme = record.README.read_text(encoding="utf-8").lower()
    for attack in REFUSALS.values():
        assert attack.otherwise.lower() in readme, attack.title
        assert f"**{attack.title}**" in readme, attack.title


def test_a_demo_that_broke_a_promise_is_not_put_into_the_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = good()
    report.refusals["extra_tensor"] = False
    before = record.RESULT.read_bytes()
    assert record.main([str(write_json(tmp_path / "demo-report.json", report.plain()))]) == 2
    assert record.RESULT.read_bytes() == before
    assert capsys.readouterr().err.startswith("error: ")

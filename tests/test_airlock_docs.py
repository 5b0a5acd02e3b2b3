"""The airlock's page is run: its examples parse, its rules are the rules, its picture is the table."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path

from mediator.airlock import review
from mediator.airlock.decide import Outputs, Rule, check
from mediator.analysis import AnalysisRules
from mediator.canonical import from_plain
from tests.mediator.analyses import request

TEXT = (Path(__file__).resolve().parents[1] / "deploy" / "docs" / "airlock.md").read_text("utf-8")


def block(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```json\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found.group(1)


def test_the_examples_are_what_the_code_reads_and_pass() -> None:
    rules = from_plain(AnalysisRules, json.loads(block("analysis")))
    outputs = json.loads(block("outputs"))
    assert from_plain(Outputs, outputs).contract == 1
    files = {
        "by_age.csv": b"sex,age,patients\nf,under 50,20\nf,50 and over,30\nm,under 50,25\nm,50 and over,25\n",
        "volumes.csv": b"sex,patients,volume,first,second\nf,50,1000,80,70\nm,50,900,60,50\n",
        "model.json": b'{"patients": 100, "slope": 0.25}',
    }
    found = check(request(outputs["files"], files, rules={name: getattr(rules, name) for name in vars(rules)}))
    assert [each.record.outcome for each in found] == ["pass", "pass", "review"]


def test_every_rule_is_on_the_page() -> None:
    table = TEXT.partition("| rule | minds |")[2].partition("\n\n")[0]
    assert set(
        re.findall(r"`([a-z_]+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    ) == set(typing.get_args(Rule))


def test_the_picture_is_the_table() -> None:
    assert f"```mermaid\n{review.mermaid()}```" in TEXT

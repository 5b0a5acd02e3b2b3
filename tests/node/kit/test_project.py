"""Projects from templates, and the line that mends each reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mediator import canonical
from mediator.errors import Code, HubCode, UsageFault
from mediator.exits import PLAIN
from mediator.permit import unenforceable
from mediator.types import DataPermit
from node.kit.advice import ADVICE, advice_for
from node.kit.project import TEMPLATES, name_of, new_project

ROOT = Path(__file__).resolve().parents[3]
TODAY = datetime(2026, 5, 4, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_is_whole(tmp_path: Path, template: str) -> None:
    made = new_project(tmp_path / "p", template, "my-job", TODAY)
    assert {"Containerfile", "README.md", "permit.json"} < set(made)
    assert ("cloister_job/contract.py" in made) is (template != "plain")
    for name in made:
        text = (tmp_path / "p" / name).read_text(encoding="utf-8")
        assert not any(mark in text for mark in ("@NAME@", "@TODAY@", "@EXPIRES@"))
    draft = canonical.from_plain(DataPermit, json.loads((tmp_path / "p" / "permit.json").read_text()))
    assert draft.permit == draft.project == "my-job" and unenforceable(draft) == []
    # every file that the image needs is there
    for line in (tmp_path / "p" / "Containerfile").read_text().splitlines():
        if line.startswith("COPY "):
            assert all((tmp_path / "p" / source).exists() for source in line.split()[1:-1]), line


def test_there_is_a_template_in_every_folder_of_templates() -> None:
    assert {path.name for path in (ROOT / "node" / "kit" / "templates").iterdir()} == set(TEMPLATES)


def test_the_library_in_a_project_is_the_products(tmp_path: Path) -> None:
    new_project(tmp_path / "p", "torch", "p", TODAY)
    for path in (ROOT / "containers" / "job").glob("*.py"):
        assert (tmp_path / "p" / "cloister_job" / path.name).read_bytes() == path.read_bytes()


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("work of years")
    with pytest.raises(UsageFault, match="not an empty folder"):
        new_project(tmp_path, "torch", "p", TODAY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_template_or_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="no template"):
        new_project(tmp_path / "p", "../../etc", "p", TODAY)
    for name in ("", "Mine", "a b", "../p", "-p"):
        with pytest.raises(UsageFault, match="name is"):
            new_project(tmp_path / "p", "torch", name, TODAY)
    assert not (tmp_path / "p").exists()


def test_a_folders_name_becomes_a_projects(tmp_path: Path) -> None:
    assert name_of(tmp_path / "My First Job!") == "my-first-job"


def test_every_reason_that_a_hub_could_hear_of_a_job_has_its_line() -> None:
    for word in set(HubCode) - PLAIN:
        assert Code(word.value) in ADVICE, word
    for code in (Code.COUNT_BELOW_THRESHOLD, Code.JOB_FAILED, Code.CONFIG_NOT_PERMITTED, Code.MODEL_NOT_PERMITTED):
        assert code in ADVICE
    assert all(0 < len(line) < 120 and "\n" not in line and not line.endswith(".") for line in ADVICE.values())
    assert "report" in advice_for(Code.BAD_SIGNATURE)

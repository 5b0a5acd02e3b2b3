"""What a story that is cut off leaves of its figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.install import telling


def test_what_was_measured_is_written_chapter_by_chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "figures.json"

    def tell(_system: object, _folder: Path, told: dict[str, Any], save: Callable[[], None], *, short: bool) -> None:
        told["install_s"] = 1.0
        save()
        assert json.loads(file.read_text())["machines"][-1] == told, "before anything else may go wrong"
        raise AssertionError("a later chapter")

    monkeypatch.setattr(telling, "tell", tell)
    monkeypatch.setattr("sys.argv", ["story.sh", "--short", "--json", str(file)])
    assert telling.main() == 1
    machines = json.loads(file.read_text())["machines"]
    assert [each["machine"] for each in machines] == list(telling.SYSTEMS)
    assert all(each["install_s"] == 1.0 and each["failed"] == "a later chapter" for each in machines)

"""The short form of the story (`story.sh --help`): install, enrol, reboot, upgrade, rollback, uninstall on Debian 12.

Without jobs, without Debian packages in the bundle, without the power cut, and the hub keeps its version: all that is
the long form's.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.install import telling

# the engine's images are asked for the sentinel's; where no machine can be made this fails, and says what is missing
pytestmark = [pytest.mark.slow, pytest.mark.engine]


@pytest.mark.timeout(1500)  # 17 minutes on two processors that ten others wanted
def test_the_short_story_on_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = tmp_path / "figures.json"
    monkeypatch.setattr("sys.argv", ["story.sh", "--short", "--system", "debian-12", "--json", str(figures)])
    code = telling.main()
    (told,) = json.loads(figures.read_text())["machines"]
    assert code == 0, told.get("failed") or told.get("cannot_be_made")
    assert told["offline_ok"] and told["reboot_ok"] and told["broken_upgrade_ok"]
    assert told["left_behind"] == []
    # the aims are 180, 60 and 60 s (install.md says what was measured); a busy machine of tests is given twice that
    assert told["install_s"] <= 360
    assert told["upgrade_gap_s"] <= 120 and told["rollback_s"] <= 120

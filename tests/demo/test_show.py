"""Off a terminal: one line per state change, and everything on record."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from deploy.demo.show import Screen


def test_a_bar_that_moves_makes_no_line_off_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    screen = Screen(tmp_path / "terminal.log", stream=out)
    with screen.phase("ingest", ("aster",)) as phase:
        for done in range(50):
            phase.update("aster", "de-identifying", done, 50)
        phase.update("aster", "nearly there", 50, 50, passing=True)
        phase.update("aster", "published", 50, 50)
        phase.summary = "50 studies"
    lines = out.getvalue().splitlines()
    assert [line.strip() for line in lines[:2]] == ["aster  de-identifying", "aster  published"]
    assert lines[2].startswith("✓ ingest")
    assert lines[2].endswith("50 studies")
    assert len(lines) == 3


def test_the_record_holds_what_was_shown_before_it_existed(tmp_path: Path) -> None:
    out = io.StringIO()
    screen = Screen(stream=out)
    screen.line("first words")
    screen.record_to(tmp_path / "terminal.log")
    screen.line("last words")
    assert (tmp_path / "terminal.log").read_text() == out.getvalue() == "first words\nlast words\n"


def test_a_phase_that_fails_says_so_and_counts_no_seconds(tmp_path: Path) -> None:
    out = io.StringIO()
    screen = Screen(tmp_path / "terminal.log", stream=out)
    with pytest.raises(ValueError, match="broken"), screen.phase("enrol"):
        raise ValueError("broken")
    assert out.getvalue().startswith("✗ enrol")
    assert screen.seconds == {}


def test_a_phase_in_two_parts_counts_both(tmp_path: Path) -> None:
    screen = Screen(tmp_path / "terminal.log", stream=io.StringIO())
    screen.add_seconds("images", 1.5)
    screen.add_seconds("images", 2.0)
    assert screen.seconds == {"images": 3.5}

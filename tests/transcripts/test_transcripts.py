"""Every transcript, typed again: what people see stays as it is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transcripts.desk import commands, furnish, play, stories


@pytest.mark.parametrize("story", stories(), ids=lambda story: story.stem)
def test_what_was_printed_is_printed(story: Path, tmp_path: Path) -> None:
    furnish(tmp_path)
    assert play(story, tmp_path) == story.read_text()


def test_ten_commands_of_every_kind_of_person_are_written_down() -> None:
    typed = {" ".join(command.split()[1:3]) for story in stories() for command in commands(story)}
    assert len(typed) >= 10
    assert {words.split()[0] for words in typed} >= {"audit", "check", "deid", "hub", "job", "keys", "node", "permit"}

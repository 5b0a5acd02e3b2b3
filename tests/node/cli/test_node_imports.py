"""What the person who ordered an import is told, and with which exit code the command ends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import typer

from mediator.errors import NotNow, UsageFault
from node.cli.follow_import import follow, tell_end
from node.ipc.imports import IngestHappened

NAME = "ingest-0123456789ab"


def test_a_published_import_has_every_key_it_had(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"studies": 3, "studies_in": 4, "instances_excluded.truncated": 2}
    last = IngestHappened(
        "published", NAME, dataset_version="sha256:1", counts=counts, excluded={"truncated": 1}
    )  # fmt: skip
    tell_end(last, as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "order": NAME, "dataset_version": "sha256:1", "studies_in": 4, "studies_published": 3, "counts": counts,
        "excluded": {"truncated": 1}, "excluded_instances": {"truncated": 2}, "studies_waiting": 0,
    }  # fmt: skip
    assert "published 3 of 4 studies as sha256:1" in said.err


def test_studies_that_wait_for_us_end_the_command_with_1_and_say_what_can_be_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as ended:
        tell_end(IngestHappened("waiting", NAME, waiting=2, hint="try again or give up"), as_json=True)
    said = capsys.readouterr()
    assert ended.value.exit_code == 1 and json.loads(said.out)["studies_waiting"] == 2
    assert json.loads(said.out)["dataset_version"] is None
    assert "our_defect" in said.err and "retry" in said.err and "give-up" in said.err


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (IngestHappened("failed", NAME, error="the disk is full", again=True), NotNow),
        (IngestHappened("failed", NAME, error="the source folder is empty"), UsageFault),
        (IngestHappened("stopped", NAME, error="it was stopped"), UsageFault),
    ],
)
def test_an_import_that_came_to_nothing_is_an_error(last: IngestHappened, error: type[Exception]) -> None:
    with pytest.raises(error, match="nothing was published"):
        tell_end(last, as_json=False)


def test_a_core_that_goes_away_does_not_end_the_import_and_the_person_is_told_so() -> None:
    def news() -> Iterator[IngestHappened]:
        yield IngestHappened("progress", NAME, stage="take_in")
        raise NotNow("the call was cancelled")

    with pytest.raises(NotNow, match="went away") as caught:
        follow(news())
    assert "goes on" in caught.value.hint
    with pytest.raises(NotNow, match="before the import"):
        follow(iter(()))


def test_each_stage_is_told_once_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    stages = ("take_in", "take_in", "deidentify", "deidentify", "hand_over", "forget")
    news = [IngestHappened("progress", NAME, stage=stage) for stage in stages]
    assert follow(iter([*news, IngestHappened("published", NAME)])).kind == "published"
    assert capsys.readouterr().err.split("\n")[:4] == [
        "taking in", "de-identifying", "handing over", "destroying quarantine",
    ]  # fmt: skip

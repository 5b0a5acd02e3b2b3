"""What an analysis leaves, on its way from `/out` to gate 2: declared by the job's library, copied by the keeper."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from containers.job.contract import Task
from containers.volumes import MAGIC, parse_copy
from mediator.airlock.decide import Outputs
from mediator.canonical import from_plain
from mediator.errors import Denied
from tests.containers.bench import LIMITS
from tests.containers.test_keeper import keeper as keeper
from tests.containers.test_volumes import END, frame


def copied(keeper: ModuleType, folder: Path, names: Iterable[str]) -> list[str]:
    for name in names:
        (folder / name).write_text("a,b\n")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return list(keeper.permitted(handle, 256))
    finally:
        os.close(handle)


def test_tables_are_copied_where_they_are_declared(keeper: ModuleType, tmp_path: Path) -> None:
    names = ["outputs.json", "b.csv", "a.json", "DONE", "progress.jsonl"]
    assert copied(keeper, tmp_path, names) == ["a.json", "b.csv", "outputs.json"]


@pytest.mark.parametrize(
    "name",
    ["A.csv", "a.png", "a.csv.gz", "patients\n.csv", "..csv", "a b.csv", "1.csv", "a" * 41 + ".csv", "a.CSV", "ä.csv"],
)
def test_a_name_that_could_carry_text_is_a_violation(keeper: ModuleType, tmp_path: Path, name: str) -> None:
    with pytest.raises(keeper.Violation, match="unknown_name"):
        copied(keeper, tmp_path, ["outputs.json", name])


def test_a_training_that_leaves_a_table_breaks_the_contract(keeper: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(keeper.Violation, match="unknown_name"):
        copied(keeper, tmp_path, ["metrics.json", "model.safetensors", "patients.csv"])


def test_more_tables_than_anybody_reads(keeper: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(keeper.Violation, match="too_many_files"):
        copied(keeper, tmp_path, ["outputs.json", *(f"t{n}.csv" for n in range(64))])


def test_links_and_pipes_among_tables_are_a_violation(keeper: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("/etc/passwd")
    with pytest.raises(keeper.Violation, match="not_a_regular_file"):
        copied(keeper, tmp_path, ["outputs.json"])


def test_a_stream_with_tables_is_read_and_one_with_other_names_is_not() -> None:
    whole = MAGIC + frame(b"F", b"a.csv", b"x") + frame(b"F", b"outputs.json", b"{}") + END
    assert [file.name for file in parse_copy(whole, LIMITS)] == ["a.csv", "outputs.json"]
    for name in (b"a.png", b"../a.csv", b"A.csv"):
        with pytest.raises(Denied):
            parse_copy(MAGIC + frame(b"F", name, b"x") + END, LIMITS)


def test_what_the_jobs_library_declares_is_what_the_airlock_reads(tmp_path: Path) -> None:
    task = Task(1, "analyse", 1, {}, tmp_path, tmp_path)
    task.declare(
        [
            {"name": "a.csv", "what": "frequency_table", "labels": ["sex"], "count": "patients"},
            {"name": "b.json", "what": "estimates", "count": "patients"},
        ]
    )
    outputs = from_plain(Outputs, json.loads((tmp_path / "outputs.json").read_text()))
    assert [(file.name, file.type, file.largest) for file in outputs.files] == [
        ("a.csv", "csv", ()), ("b.json", "json", ()),
    ]  # fmt: skip
    assert (tmp_path / "DONE").exists()

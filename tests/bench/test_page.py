"""The page of benchmarks against the benchmarks: every command can be given, and every table is what it prints."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from tests.bench import chaos, scale, soak

DOCS = Path(__file__).parents[2] / "deploy" / "docs"
PAGE = (DOCS / "benchmarks.md").read_text("utf-8")
BENCHES = {"soak": soak, "chaos": chaos, "scale": scale}


def tables(text: str) -> list[list[list[str]]]:
    """Each table as its rows of cells, the header first."""
    found = re.findall(r"(?:^\|.*\|\n)+", text + "\n", re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|\n").split("|")] for line in each.splitlines()] for each in found]
    return [[table[0], *table[2:]] for table in rows]


def section(name: str) -> str:
    return PAGE.partition(f"python -m tests.bench.{name}")[2].partition("\n## ")[0]


def test_every_benchmark_that_a_page_names_exists() -> None:
    named = {name for page in DOCS.rglob("*.md") for name in re.findall(r"tests\.bench\.\w+", page.read_text("utf-8"))}
    assert named > {f"tests.bench.{name}" for name in BENCHES}
    assert [name for name in sorted(named) if find_spec(name) is None] == []


@pytest.mark.parametrize("name", BENCHES)
def test_every_command_of_the_page_can_be_given(name: str) -> None:
    commands = re.findall(rf"`python -m tests\.bench\.{name}(?: ([^`]*))?`", PAGE)
    assert commands
    for words in commands:
        BENCHES[name].parser().parse_args(shlex.split(words))


@pytest.mark.parametrize(("name", "bench"), BENCHES.items())
def test_every_table_has_the_columns_that_are_printed(name: str, bench: ModuleType) -> None:
    header, *rows = tables(section(name))[0]
    assert tuple(header) == bench.COLUMNS
    assert rows and all(len(row) == len(header) for row in rows)


def test_the_lines_on_the_page_are_those_that_are_held() -> None:
    _, *rows = tables(section("soak"))[0]
    for what, *_, per_lap, line in rows:
        assert float(line) == soak.SHORT_LINES[what.rpartition(" ")[2]] >= float(per_lap)
    assert {what.rpartition(" ")[2] for what, *_ in rows} == set(soak.LINES)
    long = [f"{soak.LINES[name]:g}" for name in ("memory_kb", "descriptors", "threads")]
    assert "{} kB of memory, {} open files and {} threads".format(*long) in section("soak")
    _, *rows = tables(section("scale"))[0]
    sizes = {row[0]: int(row[1]) for row in rows}
    assert sizes.keys() == scale.SUBJECTS.keys()
    assert all(sizes[what] in (subject.long, subject.short) for what, subject in scale.SUBJECTS.items())
    assert all(float(row[-1]) <= scale.LINE for row in rows) and f"`n^{scale.LINE}`" in section("scale")
    _, *rows = tables(section("chaos"))[0]
    assert all(row[-1] == "" for row in rows), "a seed that broke a promise is an error, and no figure"

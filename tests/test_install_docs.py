"""The tables of install.md are what the code says, and name the command that makes them."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from deploy.install.main import parser
from node.host.processes import PROCESSES
from tests.bench import ports

PAGE = Path(__file__).resolve().parents[1] / "deploy" / "docs" / "install.md"


def section(title: str) -> str:
    return PAGE.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_table_of_ports_is_that_of_the_processes() -> None:
    assert ports.table() in section("Ports and firewall")


def test_every_process_stands_in_it_both_ways() -> None:
    """A process that a later version adds is there by being declared."""
    for direction in ("in", "out"):
        named = {each for row in ports.rows() if (row[0], row[2]) == ("node", direction) for each in row[1].split(", ")}
        assert {process.name for process in PROCESSES} <= named, direction
    inbound = [row for row in ports.rows() if row[2] == "in" and row[3] != "none"]
    assert [row[0] for row in inbound] == ["hub"], "nothing comes in at a node"


def test_the_measured_tables_name_a_command_that_there_is() -> None:
    for title, command in (("How large a machine", "tests.bench.sizing"), ("Kinds of machine", "tests.kinds")):
        assert f"`python -m {command}" in section(title)
        assert importlib.util.find_spec(command) is not None


def test_every_row_of_the_sizing_is_one_that_its_command_prints() -> None:
    """The words of each row; the figures are the machine's that they were measured on."""
    from tests.bench.sizing import rows

    zeros = dict.fromkeys(("supervisor", "broker", "core", "intake", "other", "link"), 1.0)
    found = {
        "node idle": zeros, "hub alone": {"hub": 1.0}, "hub with sites": {"hub": 1.0}, "sites": 2,
        "import": dict.fromkeys(("import worker", "state_per_file_kb", "most_per_file_kb", "file_kb"), 1.0),
        "round small": {"container": 1.0},
        "factors": dict.fromkeys(("core", "link", "hub", "superlink"), 1.0),
    }  # fmt: skip
    printed = {figureless(row) for row in rows(found)}
    stands = [figureless(line) for line in section("How large a machine").splitlines() if re.match(r"\| .*\d", line)]
    assert len(stands) >= 3 and [row for row in stands if row not in printed] == []


def figureless(row: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", row)


@pytest.mark.parametrize(
    "page", [PAGE, PAGE.parents[2] / "README.md", PAGE.with_name("operate.md")], ids=lambda page: page.stem
)
def test_every_call_of_the_installer_is_one_that_it_understands(page: Path) -> None:
    """In a block of commands or in a sentence: the words are known, to the last flag."""
    calls = re.findall(r"install\.sh ((?:node|hub|upgrade|rollback|uninstall)\b[^`\n]*)", page.read_text("utf-8"))
    assert calls or page.stem == "operate"
    for call in calls:
        words = shlex.split(call.replace("FILE", "x").replace("SECONDS", "1"))
        parser().parse_args(words)

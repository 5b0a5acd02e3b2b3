"""Identifiers by their beginnings, and identifiers as they are shown: never one for another, never cut."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.errors import UsageFault
from node.cli.id_prefix import SHORTEST, SHORTEST_TO_ACT, complete
from node.cli.output import table

ONE, TWO, OTHER = ("sha256:" + text for text in ("ab" * 32, "ab" * 31 + "cd", "c0ffee" + "0" * 58))
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda text: f"sha256:{text}")
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True) | digests


@given(st.lists(names, min_size=1, max_size=20), st.data())
def test_whatever_is_given_is_the_one_thing_it_can_be_or_nothing(known: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    assert complete(name, known, "thing", acts=True) == name
    length = data.draw(st.integers(0, len(name)))
    beginning = name[:length]
    alike = {each for each in known if each.startswith(beginning) or each.removeprefix("sha256:").startswith(beginning)}
    try:
        found = complete(beginning, known, "thing")
    except UsageFault:
        assert len(alike) > 1 or len(beginning) < SHORTEST + 7
    else:
        assert found == beginning if beginning in ("", *known) else alike == {found}


def test_a_digest_is_given_with_or_without_its_algorithm() -> None:
    known = [ONE, TWO, OTHER]
    assert complete("sha256:c0ffee", known, "image") == complete("c0ffee", known, "image") == OTHER
    assert complete("ab" * 32, known, "image", acts=True) == ONE


def test_an_exact_name_is_itself_also_where_others_begin_with_it() -> None:
    assert complete("run-1", ["run-10", "run-1", "run-11"], "run", acts=True) == "run-1"


def test_an_ambiguous_beginning_names_the_candidates_whole() -> None:
    with pytest.raises(UsageFault) as fault:
        complete("sha256:abab", [ONE, TWO, OTHER], "image")
    assert ONE in fault.value.message and TWO in fault.value.message and OTHER not in fault.value.message


@pytest.mark.parametrize("given_", ["sha256:", "c0f", "job-", "file-", "file-a", "job-aaa"])
def test_too_little_names_nothing(given_: str) -> None:
    with pytest.raises(UsageFault, match="too little"):
        complete(given_, [OTHER, "job-aaaa1111bbbb2222", "file-aaaa1111bbbb2222"], "thing")


def test_what_acts_wants_more_than_what_looks() -> None:
    assert (SHORTEST, SHORTEST_TO_ACT) == (4, 8)
    job = "job-aaaa1111bbbb2222"
    assert complete("job-aaaa", [job], "job") == complete("aaaa1111", [job], "job", acts=True) == job
    with pytest.raises(UsageFault, match="too little"):
        complete("job-aaaa", [job], "job", acts=True)


def test_what_is_unknown_is_left_for_whoever_knows_better() -> None:
    assert complete("nothing-like-it", [ONE], "run", acts=True) == "nothing-like-it"
    assert complete("", [ONE], "run") == ""


# ---- how they are shown

PROGRAM = f"""
from node.cli.output import show, table
rows = [
    ({ONE!r}, "lung-2026.11.26.1.2", {{"truncated": 2, "secondary_capture": 11}}),
    ("short", "a\\tb\\x1b[31m\\nc", None),
]
show(rows, as_json=False, table=table(("image", "run", "excluded"), rows))
"""


def test_piped_a_table_is_whole_and_its_cells_stand_between_tabs() -> None:
    for columns in ("20", "80", "400"):
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
            env={"PATH": os.environ["PATH"], "COLUMNS": columns}, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert [line.split("\t") for line in ended.stdout.splitlines()] == [
            ["image", "run", "excluded"],
            [ONE, "lung-2026.11.26.1.2", "truncated 2, secondary_capture 11"],
            ["short", "a\\tb\\x1b[31m\\nc", ""],
        ]


@pytest.mark.parametrize("columns", ["10", "79", "200"])
def test_on_a_terminal_of_any_width_no_identifier_is_cut_or_folded(columns: str) -> None:
    ours, theirs = pty.openpty()
    ended = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=theirs, cwd=Path(__file__).parents[3],
        env={"PATH": os.environ["PATH"], "COLUMNS": columns, "TERM": "xterm"},
    )  # fmt: skip
    assert ended.wait(60) == 0
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert ONE in shown and "lung-2026.11.26.1.2" in shown and "…" not in shown and "\x1b[31m" not in shown


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_no_text_of_a_stranger_makes_another_row_or_cell(rows: list[tuple[str, str]]) -> None:
    for row in table(("a", "b"), rows).rows:
        assert all(cell.isprintable() or not cell for cell in row)

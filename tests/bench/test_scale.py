"""The short form of `python -m tests.bench.scale`: smaller sizes, the same line.

In a process of its own: what is measured is the processor time of the whole process, threads of other tests included.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.scale import COLUMNS, SUBJECTS

pytestmark = pytest.mark.slow


def test_no_cost_grows_much_faster_than_what_it_is_for() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench.scale", "--short", "--json"], capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(ran.stdout)["rows"]
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [row["what"] for row in rows] == list(SUBJECTS)

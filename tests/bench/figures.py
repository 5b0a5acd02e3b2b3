"""What the long benchmarks share: how they print, how growth is told, and what a process holds."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
Row = Mapping[str, Any]


def show(bench: str, columns: Sequence[str], rows: Sequence[Row], *, as_json: bool, **more: Any) -> None:
    """The rows on stdout, as a table for a person or as JSON; every row has every column and no other."""
    assert all(tuple(row) == tuple(columns) for row in rows), rows
    if as_json:
        print(json.dumps({"bench": bench, **more, "rows": rows}, indent=1))
        return
    table = Table(*columns, title=", ".join([bench, *(f"{name} {value}" for name, value in more.items())]))
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    Console(width=160).print(table)


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """`k` where the cost grows as n^k, by least squares on logarithms: 1 is linear, 2 is quadratic."""
    x, y = [math.log(size) for size in sizes], [math.log(max(cost, 1e-9)) for cost in costs]
    return statistics.linear_regression(x, y).slope


def slope(values: Sequence[float]) -> float:
    """Growth from one value to the next: the median over all pairs, which one odd value does not move (Theil–Sen)."""
    return statistics.median((late - early) / (b - a) for (a, early), (b, late) in combinations(enumerate(values), 2))


# ---- what a process holds (proc(5))


def pss_kb(pid: int) -> int:
    """Memory, in which what several processes share is counted once."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_A_SECOND


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


class Peak:
    """Memory in MB that a block took at its height beyond what this process had before."""

    def __enter__(self) -> Peak:
        Path("/proc/self/clear_refs").write_text("5")  # the high water mark begins anew
        self._before = _status_kb("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.mb = max(0.0, (_status_kb("VmHWM") - self._before) / 1000)


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))

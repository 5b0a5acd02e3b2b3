"""The judges of the long benchmarks, each shown something that it must not let pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import figures, scale, soak


def test_growth_is_told_by_its_power_whatever_one_value_says() -> None:
    sizes = [100, 200, 400]
    for power in (1.0, 2.0):
        assert figures.exponent(sizes, [3e-6 * size**power for size in sizes]) == pytest.approx(power)
    assert figures.slope([5.0, 5.0, 9.0, 5.0, 5.0]) == 0 and figures.slope([1.0, 3.0, 50.0, 7.0, 9.0]) == 2.0


def test_a_quadratic_subject_is_too_steep(monkeypatch: pytest.MonkeyPatch) -> None:
    def quadratic(_: Path, count: int, used: scale.Used) -> None:
        used.seconds = 1e-6 * count**2

    found = [scale.measured("pairs", scale.Subject(quadratic, 1000, 1000), 1000)]
    assert tuple(found[0]) == scale.COLUMNS and found[0]["us_each"] == 4 * found[0]["us_each_at_a_quarter"]
    assert scale.too_steep(found) == ["pairs: n^2.0, at most n^1.4"]


def test_what_grows_with_every_lap_is_named_and_what_jumps_once_is_not() -> None:
    soaked = soak.Soak(*(None,) * 3)  # type: ignore[arg-type]
    soaked.read["core memory_kb"] = [1000.0 * lap for lap in range(24)]
    soaked.read["link memory_kb"] = [0.0, 0.0, 0.0, 100.0, 100.0, 100.0, 90_000.0, *[100.0] * 17]
    soaked.read["core descriptors"] = [20.0 + lap for lap in range(24)]
    rows = soaked.rows()
    assert all(tuple(row) == soak.COLUMNS for row in rows)
    assert [line.partition(":")[0] for line in soak.grown(rows)] == ["core memory_kb", "core descriptors"]
    few = soak.Soak(*(None,) * 3)  # type: ignore[arg-type]
    few.read["core memory_kb"] = [4000.0 * lap for lap in range(7)]
    assert soak.grown(few.rows()), "a short form sees what is gross"


def test_rows_are_printed_whole_and_no_column_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [dict(zip(soak.COLUMNS, ("x", 1, 2, 0.5, 1.0), strict=True))]
    figures.show("soak", soak.COLUMNS, rows, as_json=True, laps=3)
    assert json.loads(capsys.readouterr().out) == {"bench": "soak", "laps": 3, "rows": rows}
    with pytest.raises(AssertionError):
        figures.show("soak", soak.COLUMNS, [{"what": "x"}], as_json=True)

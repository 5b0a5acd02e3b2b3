"""The judges of the long benchmarks, each shown something that it must not let pass."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from durable.files import create_file
from tests.bench import chaos, figures, scale, soak
from tests.bench.disturbed import read, slow_commits, slow_disk
from tests.bench.wire import Wire
from tests.end_to_end.machine import HOST


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


def test_a_database_counts_by_what_it_holds_and_not_by_the_log_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (x)")
        empty = soak.stored_kb(path)
        database.execute("INSERT INTO t VALUES (zeroblob(500000))")
        full = soak.stored_kb(path)
        for _ in range(5):
            database.execute("UPDATE t SET x = randomblob(500000)")
        assert empty < 20 and 500 < full == soak.stored_kb(path) < 520, "however often it is written"
        assert soak.kilobytes(*tmp_path.iterdir()) > 2 * full, "a log was there"
        database.execute("DELETE FROM t")
        assert soak.stored_kb(path) == empty


def test_rows_are_printed_whole_and_no_column_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [dict(zip(soak.COLUMNS, ("x", 1, 2, 0.5, 1.0), strict=True))]
    figures.show("soak", soak.COLUMNS, rows, as_json=True, laps=3)
    assert json.loads(capsys.readouterr().out) == {"bench": "soak", "laps": 3, "rows": rows}
    with pytest.raises(AssertionError):
        figures.show("soak", soak.COLUMNS, [{"what": "x"}], as_json=True)


def test_a_seed_draws_the_same_schedule_and_every_fault_is_in_it() -> None:
    drawn = chaos.schedule(7, 20)
    assert drawn == chaos.schedule(7, 20) != chaos.schedule(8, 20)
    assert chaos.schedule(7, 30)[:20] == drawn, "a longer one begins as the shorter"
    faults = {step.fault for step in chaos.schedule(7, 10)}
    assert faults == {
        *(f"kill {role}" for role in chaos.ROLES),
        "kill node",
        "kill hub",
        "cut",
        "full",
        "clock",
        "slow",
    }
    assert {step.work for step in drawn} == {"round", "import"}


def test_a_cut_wire_ends_what_it_carried_and_takes_nothing_until_it_is_mended() -> None:
    with socket.create_server((HOST, 0)) as hub, Wire(hub.getsockname()[1]) as wire:
        threading.Thread(target=echo, args=[hub], daemon=True).start()
        with socket.create_connection((HOST, wire.port), 5) as node:
            node.sendall(b"one")
            assert node.recv(10) == b"one"
            assert wire.cut() == 1
            assert ended(node)
        with socket.create_connection((HOST, wire.port), 5) as node:
            assert ended(node)
        wire.mend()
        with socket.create_connection((HOST, wire.port), 5) as node:
            node.sendall(b"two")
            assert node.recv(10) == b"two"


def echo(hub: socket.socket) -> None:
    while True:
        try:
            near, _ = hub.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=[near], daemon=True).start()


def _answer(near: socket.socket) -> None:
    with near:
        while data := near.recv(100):
            near.sendall(data)


def ended(node: socket.socket) -> bool:
    try:
        return node.recv(10) == b""
    except ConnectionResetError:
        return True


def test_a_hand_that_says_nothing_disturbs_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "clock") == 0
    (tmp_path / "clock").write_text("-600.0")
    assert read(tmp_path / "clock") == -600


def test_a_slow_disk_is_slow_for_whoever_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fsync)  # taken back afterwards
    slow_disk(tmp_path / "disk")
    (tmp_path / "disk").write_text("0.2")
    began = time.monotonic()
    create_file(tmp_path / "file", b"x")
    assert time.monotonic() - began >= 0.2
    engine = create_engine(f"sqlite:///{tmp_path}/db")
    slow_commits(tmp_path / "disk", engine)
    began = time.monotonic()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    assert time.monotonic() - began >= 0.2

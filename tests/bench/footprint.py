"""What an idle node costs the hospital: memory of all its processes together, time to ready, processor time at rest.

    python -m tests.bench.footprint [SECONDS AT REST]

One hub and one enrolled hospital with nothing to do, on this machine, by the `cloister` command. Memory is PSS
(`/proc/PID/smaps_rollup`): what several processes share is counted once. The goals are 400 MB, 5 s and 1 % of a core.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.containers.bench import ENGINE_URL
from tests.end_to_end.commands import cloister
from tests.end_to_end.hospital import ROLES, Hospital, uids
from tests.end_to_end.hub import Hub
from tests.end_to_end.machine import AS_ROOT, UID_BASE, descendants, eventually, public

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def processes(hospital: Hospital) -> dict[str, list[int]]:
    """Process ids by role; the supervisor's own is one of them."""
    assert hospital.process is not None
    found: dict[str, list[int]] = {"supervisor": [hospital.process.pid]}
    for pid in descendants(hospital.process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        role = next((role for role in ROLES if role.encode() in words), "other")
        found.setdefault(role, []).append(pid)
    return found


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) / 1000


def cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS_A_SECOND


def measure(hospital: Hospital, rest_s: float) -> Table:
    begun = time.perf_counter()
    hospital.serve()
    ready_s = time.perf_counter() - begun
    eventually(lambda: hospital.json("status")["hub"]["connected"], what="the link's connection")
    time.sleep(5.0)
    listed = processes(hospital)
    before = {role: sum(map(cpu_s, pids)) for role, pids in listed.items()}
    time.sleep(rest_s)
    table = Table(title=f"an idle node: ready after {ready_s:.1f} s; {rest_s:.0f} s at rest")
    for column in ("process", "PSS (MB)", "of a core (%)"):
        table.add_column(column, justify="left" if column == "process" else "right")
    memory, used = 0.0, 0.0
    for role, pids in listed.items():
        own, worked = sum(map(pss_mb, pids)), sum(map(cpu_s, pids)) - before[role]
        memory, used = memory + own, used + worked
        table.add_row(role, f"{own:.0f}", f"{100 * worked / rest_s:.2f}")
    table.add_row("together", f"{memory:.0f}", f"{100 * used / rest_s:.2f}")
    return table


def main() -> None:
    rest_s = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    os.environ.setdefault("DOCKER_HOST", ENGINE_URL)
    root = Path(tempfile.mkdtemp(prefix="cl-", dir="/var/tmp"))
    root.chmod(0o755)
    hub = Hub(root / "hub", UID_BASE if AS_ROOT else None)
    hospital = Hospital(root / "n1", f"site-{secrets.token_hex(2)}", uids(1))
    try:
        cloister("keys", "new", root / "committee.key")
        hub.install(public(root / "committee.key"))
        hub.serve()
        hospital.install(hub, public(root / "committee.key"))
        Console().print(measure(hospital, rest_s))
    finally:
        hospital.stop()
        hub.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()

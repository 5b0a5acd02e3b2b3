"""De-identification side by side: our engine, `cp -r`, and the tools hospitals use today, on one corpus in one run.

usage: python tests/bench/deid.py [--files N] [--rounds N] [--folder DIR] [--json FILE] [--to-disk] [--before TREE]

Makes its own corpus (CT, 512 x 512, 16 bit, some 140 elements) and, the first time, a venv with the peers of
`requirements-peers.txt` in DIR. Each round runs every contender once, in turn, into a fresh folder; a contender first
imports what it needs and then waits for the start, so that no start-up is measured. Medians over the rounds. Our
engine searches everything it wrote (the residual check is never off). `gdcmanon` is Debian's (libgdcm-tools).

Outputs are emptied after each run, not deleted (they lie in DIR/out): ext4 will not use an inode again for a while, and
where thousands were just deleted it looks at each of them for every new file (half a millisecond here), which would be
measured as everybody's work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass, replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[0] = str(REPOSITORY)  # this folder: its deid.py is not the package of that name
HERE = Path(__file__).parent

from node.deid.profiles import profile_names  # noqa: E402

# EUCAIM's script reached this where `cp -r` reached 811 files/s
EUCAIM_SCRIPT, ITS_CP = 15.0, 811.0


@dataclass(frozen=True)
class Measure:
    """One run: wall and CPU seconds, and the peak memory of the largest process in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def corpus(folder: Path, count: int) -> None:
    """`count` slices of one series, in `folder`."""
    import numpy as np
    from pydicom.uid import generate_uid

    from tests.bench.slices import series

    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for number, content in enumerate(series(count, random, generate_uid)):
        (folder / f"{number:05d}.dcm").write_bytes(content)


def contenders(work: Path, before: Path | None) -> dict[str, list[list[str]]]:
    """Name to the commands that run at the same time; `{source}` (a half of it: `{half}`) and `{target}` are filled.
    `before`: another checkout, whose gate 0 runs beside ours with each profile."""
    ours = [sys.executable, str(HERE / "ours.py")]
    peer = [str(work / "peers/bin/python"), str(HERE / "peers.py")]
    found = {
        "cp -r": [["cp", "-r", "{source}", "{target}/copy"]],
        "cloister": [[*ours, "header", "{source}", "{target}"]],
        "cloister, pixel hash": [[*ours, "hash", "{source}", "{target}"]],
        "pydicom read + write": [[*peer, "pydicom", "{source}", "{target}"]],
        "dicom-anonymizer": [[*peer, "dicom-anonymizer", "{source}", "{target}"]],
        "dicognito": [[*peer, "dicognito", "{source}", "{target}"]],
        "deid": [[*peer, "deid", "{source}", "{target}"]],
        "gdcmanon": [
            [
                "/usr/bin/gdcmanon",
                "--dumb",
                "-r",
                "--empty",
                "10,10",
                "--empty",
                "10,20",
                "-i",
                "{source}",
                "-o",
                "{target}",
            ]
        ],
    }
    alone = [name for name in found if name not in ("cp -r", "gdcmanon")]
    for profile in profile_names():
        for name, tree in (("cloister", REPOSITORY), *([("before", before)] if before else [])):
            found[f"{name}, {profile}"] = [[*ours, "header", "{source}", "{target}", profile, str(tree)]]
    for name in alone:
        command = found[name][0]
        found[f"{name}, 2 processes"] = [[part.replace("{source}", f"{{half{n}}}") for part in command] for n in (0, 1)]
    return found


def measure(commands: list[list[str]], source: Path, work: Path, *, to_disk: bool = False) -> Measure:
    """Run the commands at once, from the moment all are ready."""
    target = Path(tempfile.mkdtemp(dir=work / "out"))
    places = {"source": source, "target": target, "half0": work / "half0", "half1": work / "half1"}
    filled = [[part.format(**places) for part in command] for command in commands]
    os.sync()
    try:
        found = _talking(filled) if filled[0][0] != "cp" and "gdcmanon" not in filled[0][0] else _timed(filled[0])
        start = time.perf_counter()
        if to_disk:
            os.sync()
        return replace(found, wall_s=found.wall_s + time.perf_counter() - start)
    finally:
        outputs = [path for path in target.rglob("*") if path.is_file()]
        assert len(outputs) == len(os.listdir(source)), filled[0]
        assert all(path.stat().st_size > 500_000 for path in outputs), filled[0]
        for path in outputs:
            os.truncate(path, 0)


def _timed(command: list[str]) -> Measure:
    """A tool that is no Python: its start-up of a few milliseconds counts."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, command[0]
    return Measure(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _talking(commands: list[list[str]]) -> Measure:
    """Children that say `ready`, wait for a line, and end with `wall cpu peak_kb`."""
    pipe = subprocess.PIPE
    quiet = subprocess.DEVNULL
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True) for command in commands]
    for child in children:
        assert child.stdout is not None and "ready" in child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate()[0].splitlines()[-1].split() for child in children]
    walls, cpus, peaks = zip(*([float(word) for word in words] for words in said), strict=True)
    return Measure(max(walls), sum(cpus), max(peaks) / 1024)


def report(results: dict[str, list[Measure]], files: int, megabytes: float) -> list[dict[str, object]]:
    """One row per contender, by the medians; ratios to `cp -r` and to dicom-anonymizer of the same round."""
    rows: list[dict[str, object]] = []
    for name, runs in results.items():
        wall = statistics.median(run.wall_s for run in runs)
        ratio = {
            other: statistics.median(b.wall_s / a.wall_s for a, b in zip(runs, results[other], strict=True))
            for other in ("cp -r", "dicom-anonymizer")
            if other in results
        }
        rows.append(
            {
                "contender": name,
                "files_per_s": round(files / wall, 1),
                "mb_per_s": round(megabytes / wall, 1),
                "cpu_ms_per_file": round(statistics.median(run.cpu_s for run in runs) / files * 1e3, 2),
                "peak_mb": round(max(run.peak_mb for run in runs), 1),
                "of_cp": round(ratio.get("cp -r", 0), 2),
                "times_dicom_anonymizer": round(ratio.get("dicom-anonymizer", 0), 1),
            }
        )
    return rows


def print_table(rows: list[dict[str, object]]) -> None:
    print(f"{'':34} files/s    MB/s  CPU ms  peak MB  of cp  x dicom-anonymizer")
    for row in rows:
        print(
            f"{row['contender']:34}{row['files_per_s']:8}{row['mb_per_s']:8}{row['cpu_ms_per_file']:8}{row['peak_mb']:9}"
            f"{row['of_cp']:7}{row['times_dicom_anonymizer']:8}"
        )
    rate = {str(row["contender"]): float(str(row["files_per_s"])) for row in rows}
    script = EUCAIM_SCRIPT * rate["cp -r"] / ITS_CP
    print(f"load while it ran: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if "cloister" in rate:
        times = rate["cloister"] / script
        print(f"EUCAIM's script scaled by cp: {script:.1f} files/s; cloister is {times:.1f} times that")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/cloister-bench"))
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose name begins with one of these, and cp")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--before", type=Path, metavar="TREE", help="another checkout, to run beside this one")
    parser.add_argument("--to-disk", action="store_true", help="a run ends when all it wrote is on the disk (sync)")
    wish = parser.parse_args()
    work = wish.folder
    source = work / f"corpus-{wish.files}"
    (work / "out").mkdir(parents=True, exist_ok=True)
    if not source.exists():
        corpus(source, wish.files)
    if not (work / "peers").exists():
        venv.create(work / "peers", with_pip=True)
        subprocess.run(
            [work / "peers/bin/python", "-m", "pip", "install", "-q", "-r", HERE / "requirements-peers.txt"], check=True
        )
    for half in (0, 1):
        shutil.rmtree(work / f"half{half}", ignore_errors=True)
        (work / f"half{half}").mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        os.link(path, work / f"half{number % 2}" / path.name)
    wanted = ("cp -r", *wish.only) if wish.only else ("",)
    chosen = {name: c for name, c in contenders(work, wish.before).items() if name.startswith(wanted)}
    results: dict[str, list[Measure]] = {name: [] for name in chosen}
    for turn in range(wish.rounds):
        for name, commands in chosen.items():
            results[name].append(measure(commands, source, work, to_disk=wish.to_disk))
            print(f"round {turn + 1}: {name}: {results[name][-1].wall_s:.2f} s", file=sys.stderr)
    size = sum(path.stat().st_size for path in source.iterdir()) / 1e6
    rows = report(results, wish.files, size)
    print_table(rows)
    if wish.json:
        wish.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

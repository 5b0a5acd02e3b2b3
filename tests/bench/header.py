"""What a header costs, by profile, in processor time: this checkout and another one in turn, batch by batch.

usage: python -m tests.bench.header [--before TREE] [--turns N] [--profile NAME ...] [--json]

On a machine that others use a run of seconds says little. Here two processes on one processor take turns of some 50 ms
over the same slices (140 elements, pixels of 8 x 8) and write into memory, so that both are slowed alike; told are the
least and the median of all turns, the kernel's share of the least, and the median of the ratios of neighbouring turns.
Each turn is gate 0 whole, as in `tests/bench/deid.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import generate_uid

from node.deid.profiles import profile_names
from tests.bench.slices import series
from tests.sim.dicom import PIXELS, to_bytes

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = 128
WORKER = """
import os, sys
from resource import RUSAGE_SELF, getrusage
from pathlib import Path
tree, profile, source = sys.argv[1:]
sys.path.insert(0, tree)
from mediator.deid.pseudonyms import Pseudonyms
from node.deid.deidentify import Finished, Gate0, suspects
from node.deid.engine import ProfileEngine
from node.deid.profiles import load_profile, standard
from node.deid.stream import FileStream
engine = ProfileEngine(load_profile(profile), standard())
names = sorted(os.listdir(source))
for line in sys.stdin:
    target = Path(line.strip())
    gate, placed, begun = Gate0(engine, Pseudonyms(bytes(32), "bench"), review=True), [], getrusage(RUSAGE_SELF)
    for name in names:
        original = FileStream(os.open(f"{source}/{name}", os.O_RDONLY))
        placed.append(gate.begin(original, target, lambda _identity, name=name: name)())
        original.close()
    assert all(one.place == "pass" for one in placed)
    done = [Finished(one.path, one.identity.keys, one.lost, name) for one, name in zip(placed, names)]
    assert not list(suspects(done, engine))
    ended = getrusage(RUSAGE_SELF)
    user, kernel = ended.ru_utime - begun.ru_utime, ended.ru_stime - begun.ru_stime
    print((user + kernel) / len(names), kernel / len(names), flush=True)
"""


class Turn(NamedTuple):
    """Processor seconds a file, and the kernel's part of them."""

    all_s: float
    kernel_s: float


def corpus(folder: Path) -> None:
    """Slices as a scanner writes them, with next to no pixels."""
    folder.mkdir()
    for number, content in enumerate(series(FILES, np.random.default_rng(1), generate_uid)):
        dataset = dcmread(DicomBytesIO(content))
        dataset.Rows = dataset.Columns = 8
        dataset.PixelData = PIXELS
        (folder / f"{number:05d}.dcm").write_bytes(to_bytes(dataset))


def taken(trees: dict[str, Path], profile: str, source: Path, work: Path, turns: int) -> dict[str, list[Turn]]:
    """What each turn of each tree took."""
    pipe = subprocess.PIPE
    processor = str(min(os.sched_getaffinity(0)))
    workers = {
        name: subprocess.Popen(
            ["taskset", "-c", processor, sys.executable, "-c", WORKER, str(tree), profile, str(source)],
            stdin=pipe, stdout=pipe, text=True,
        )
        for name, tree in trees.items()
    }  # fmt: skip
    found: dict[str, list[Turn]] = {name: [] for name in trees}
    for _ in range(turns + 2):
        for name, worker in workers.items():
            assert worker.stdin is not None and worker.stdout is not None
            with tempfile.TemporaryDirectory(dir=work) as target:
                worker.stdin.write(target + "\n")
                worker.stdin.flush()
                found[name].append(Turn(*map(float, worker.stdout.readline().split())))
    for worker in workers.values():
        worker.communicate()
    return {name: times[2:] for name, times in found.items()}  # the first turns fill memos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="TREE")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--profile", nargs="*", default=list(profile_names()))
    parser.add_argument("--json", action="store_true")
    wish = parser.parse_args()
    trees = {"now": REPOSITORY, **({"before": wish.before} if wish.before else {})}
    rows = []
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="cloister-header-", dir=memory) as work:
        corpus(Path(work) / "corpus")
        for profile in wish.profile:
            times = taken(trees, profile, Path(work) / "corpus", Path(work), wish.turns)
            row: dict[str, object] = {"profile": profile}
            for name, each in times.items():
                least = min(each)
                row |= {
                    f"{name}_least_ms": round(least.all_s * 1e3, 3),
                    f"{name}_kernel_ms": round(least.kernel_s * 1e3, 3),
                }
                row |= {f"{name}_median_ms": round(statistics.median(one.all_s for one in each) * 1e3, 3)}
            if wish.before:
                pairs = zip(times["now"], times["before"], strict=True)
                row["now_of_before"] = round(statistics.median(now.all_s / before.all_s for now, before in pairs), 3)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    if wish.json:
        print(json.dumps(rows, indent=1))
        return
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(map(str, row.values())))


if __name__ == "__main__":
    main()

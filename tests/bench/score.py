"""The score of MIDI-B's ten actions, by profile: over-removal counts as much as a leak.

usage: python -m tests.bench.score [--patients N] [--pictures N] [--seed N] [--json]

Makes its own patients (20 objects each, of every kind that can be measured), one study with a planted object of every
kind of container, and pictures with a name drawn into them; asks of each what its profile promises. Exit code 3 where
a profile reaches less than 99.95 %, or less than all of what must go.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

from node.deid.pixels import PixelGate
from node.deid.profiles import profile_names
from tests.sim.scored import containers_through_gate, patients, pictures_through_gate, table, through_gate
from tests.sim.scorer import ACTIONS, REMOVAL, Score

WANTED = 0.9995


def scored(profile: str, count: int, pictures: int, reader: PixelGate, seed: int = 1) -> Score:
    with tempfile.TemporaryDirectory(prefix="cloister-score-") as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(work)
        found = through_gate(patients(count, seed), profile, folder)
        found.add(containers_through_gate(profile, folder))
        found.add(pictures_through_gate(profile, folder, pictures, reader))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    wish = parser.parse_args()
    with PixelGate() as reader:
        scores = {name: scored(name, wish.patients, wish.pictures, reader, wish.seed) for name in profile_names()}
    if wish.json:
        told = {
            name: {action: [one.right[action], one.asked[action]] for action in ACTIONS} for name, one in scores.items()
        }
        print(json.dumps(told, indent=1))
    else:
        print(table(scores))
    for name, one in scores.items():
        for wrong in one.wrong:
            print(f"{name}: {wrong}", file=sys.stderr)
    return 3 if any(one.share() < WANTED or one.share(REMOVAL) < 1 for one in scores.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
